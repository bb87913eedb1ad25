"""The report of a cross-validation run: report.json, cases.csv, report.md and report.html."""

from voxpool_pipelines.report.write import ReportPaths, write_report

__all__ = ["ReportPaths", "write_report"]
