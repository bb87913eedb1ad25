"""The report's numbers for machines: report.json and cases.csv."""

import csv
import io
import math
from dataclasses import asdict
from typing import Any

from voxpool_pipelines.report.summary import Comparison, RunSummary, VariantSummary
from voxpool_pipelines.report.words import title
from voxpool_pipelines.results import CaseResult, RunResults, Variant
from voxpool_pipelines.statistics import Summary

SCHEMA = 1


def report_json(summary: RunSummary) -> dict[str, Any]:
    """Everything that report.json holds; Dice values are 0 to 1, NaN stands for a value that does not exist.

    Args:
        summary: The run, summarised.

    Returns:
        A document with one entry per variant under `variants`.
    """
    run = summary.run
    return {
        "schema": SCHEMA,
        "name": run.name,
        "complete": run.complete,
        "data": {
            "name": run.data.name,
            "convention": run.data.convention,
            "label_names": run.data.label_names,
            "cases": run.data.cases,
        },
        "folds": [{"train": list(split.train), "val": list(split.val)} for split in run.splits],
        "seed": run.seed,
        "device": run.device,
        "versions": run.versions,
        "config": run.config,
        "variants": [variant_entry(each) for each in summary.variants],
        "incomplete": [
            {"id": result.variant.id, "missing_folds": list(result.missing_folds)}
            for result in run.variants
            if not result.complete
        ],
    }


def variant_entry(summary: VariantSummary) -> dict[str, Any]:
    """The entry of one variant in report.json.

    Args:
        summary: The variant, summarised.

    Returns:
        Means over the cases; `p_vs_base` is corrected after Holm, the raw p-value is in `difference_vs_base`.
    """
    variant = summary.variant
    return {
        "id": variant.id,
        "name": title(variant),
        "net": variant.net,
        "reduction": variant.reduction,
        "head": variant.head,
        "segments": variant.segments,
        "complete": summary.result.complete,
        "n_cases": len(summary.result.cases),
        "dice": _means(summary.dice),
        "dice_foreground": summary.dice_foreground.mean,
        "dice_with_background": summary.dice_with_background.mean,
        "std": summary.dice_foreground.sd,
        "dice_std": {name: each.sd for name, each in summary.dice.items()},
        "dice_median": {name: each.median for name, each in summary.dice.items()},
        "dice_foreground_median": summary.dice_foreground.median,
        "dice_foreground_iqr": [summary.dice_foreground.q1, summary.dice_foreground.q3],
        "hd95_mm": _means(summary.hd95),
        "hd95_mm_foreground": summary.hd95_foreground.mean,
        "hd95_mm_without_missed": _means(summary.hd95_found),
        "volume_error_ml": _means(summary.volume_error),
        "volume_bias_ml": _means(summary.volume_bias),
        "oracle_dice": summary.oracle or None,
        "oracle_dice_foreground": summary.oracle_foreground,
        "num_segments": None if math.isnan(summary.num_segments) else round(summary.num_segments),
        "parameters": summary.parameters,
        "seconds_per_volume": summary.seconds,
        "supervoxel_seconds_per_volume": summary.supervoxel_seconds,
        "p_vs_base": None if summary.vs_base is None else summary.vs_base.foreground.p_holm,
        "difference_vs_base": _comparison(summary.vs_base),
        "difference_vs_control": _comparison(summary.vs_control),
        "counts": summary.counts,
        "folds": [asdict(fold) for fold in summary.result.folds],
    }


def cases_csv(run: RunResults) -> str:
    """Every case once per variant, from the fold that held it out, without anything that a clock measured.

    Args:
        run: The run.

    Returns:
        The table as CSV: sorted by variant and case, numbers with six decimals, empty for no value.
    """
    text = io.StringIO()
    rows = [_case_row(result.variant, case, run.class_names) for result in run.variants for case in result.cases]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _case_row(variant: Variant, case: CaseResult, class_names: tuple[str, ...]) -> dict[str, str]:
    row = {
        "variant": variant.id,
        "net": variant.net,
        "reduction": "" if variant.reduction is None else str(variant.reduction),
        "head": variant.head,
        "segments": variant.segments or "",
        "case_id": case.case_id,
        "fold": str(case.fold),
        "dice_foreground": _fixed(case.dice_foreground),
        "dice_with_background": _fixed(case.dice_with_background),
        "dice_background": _fixed(case.dice_background),
        "num_segments": "" if case.num_segments is None else str(case.num_segments),
    }
    for name in class_names:
        score = case.classes[name]
        row |= {
            f"{name}_dice": _fixed(score.dice),
            f"{name}_hd95_mm": _fixed(score.hd95_mm),
            f"{name}_assd_mm": _fixed(score.assd_mm),
            f"{name}_volume_ml": _fixed(score.volume_ml),
            f"{name}_target_volume_ml": _fixed(score.target_volume_ml),
            f"{name}_status": score.status,
            f"{name}_oracle_dice": _fixed((case.oracle_dice or {}).get(name, math.nan)),
        }
    return row


def _fixed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _means(summaries: dict[str, Summary]) -> dict[str, float]:
    return {name: summary.mean for name, summary in summaries.items()}


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "reference": comparison.reference,
        **asdict(comparison.foreground),
        "classes": {name: asdict(test) for name, test in comparison.classes.items()},
    }
