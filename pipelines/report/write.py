"""From a run directory to the files of its report."""

from dataclasses import dataclass
from pathlib import Path

from voxpool.io import write_json, write_text
from voxpool_pipelines.report.data import cases_csv, report_json
from voxpool_pipelines.report.markdown import report_markdown
from voxpool_pipelines.report.page import report_html
from voxpool_pipelines.report.summary import summarise_run
from voxpool_pipelines.results import load_run


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report."""

    json: Path
    csv: Path
    markdown: Path
    html: Path


def write_report(run_dir: str | Path) -> ReportPaths:
    """Write the report of a run, finished or not, into its directory.

    Args:
        run_dir: What `voxpool crossval --out` wrote.

    Returns:
        The four files, each written whole or not at all.

    Raises:
        InputError: If the run cannot be read.
        ResourceError: If the files cannot be written.
    """
    summary = summarise_run(load_run(run_dir))
    folder = summary.run.path
    paths = ReportPaths(
        json=folder / "report.json",
        csv=folder / "cases.csv",
        markdown=folder / "report.md",
        html=folder / "report.html",
    )
    write_json(paths.json, report_json(summary))
    write_text(paths.csv, cases_csv(summary.run))
    write_text(paths.markdown, report_markdown(summary))
    write_text(paths.html, report_html(summary))
    return paths
