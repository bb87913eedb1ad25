"""The main job on the sample cohort, small enough for a few minutes on two cores."""

from pathlib import Path

from rich.console import Console

from voxpool.data import find_dataset
from voxpool.errors import InputError
from voxpool_pipelines.config import parse_config
from voxpool_pipelines.crossval import crossval
from voxpool_pipelines.prepare import prepare_folds, require_sound
from voxpool_pipelines.report import write_report


def run_demo(data: Path, out: Path, console: Console) -> Path:
    """Cross-validate base, V1, V2, V3 with cubes and SLIC at reduction 8, and write the report.

    Args:
        data: The sample cohort's folder.
        out: Run folder.
        console: Where progress is shown.

    Returns:
        The report's HTML file.

    Raises:
        InputError: If the sample cohort is not there.
    """
    if not data.is_dir():
        raise InputError(f"no sample cohort at {data}; run the demo in a clone of voxpool, or name it with --data")
    # so few steps want a higher learning rate than the defaults, which are for thousands
    rates = {"learning_rate": 1e-2, "finetune_learning_rate": 3e-3, "auxiliary_weight": 0.0}
    config = parse_config(reductions=(8,), iterations=300, finetune_share=0.4, crop=48, batch_size=2, **rates)
    dataset = find_dataset(data, image="*_t1.nii.gz", labels="*_labels.nii.gz")
    splits = prepare_folds(dataset, folds=config.folds, seed=config.seed, group_by_subject=True, given=None, out=out)
    require_sound(dataset, splits, console)
    crossval(dataset, splits, config, out=out, console=console)
    html = write_report(out).html
    console.print(f"report: {html}", highlight=False, markup=False, soft_wrap=True)
    return html
