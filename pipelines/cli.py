"""The `voxpool` command: options in, exit codes out. What is heavy is imported when a command runs."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

import voxpool
from voxpool.errors import UsageError, VoxpoolError
from voxpool_pipelines.about import add_about_commands
from voxpool_pipelines.arguments import join_lists, spacing_of, words
from voxpool_pipelines.bench.cli import bench_app
from voxpool_pipelines.export_cli import export
from voxpool_pipelines.images.cli import add_image_commands
from voxpool_pipelines.import_cli import import_
from voxpool_pipelines.interruptions import Interrupted, listen, stop_if_interrupted
from voxpool_pipelines.options import (
    Amp,
    AuxiliaryWeight,
    Compactness,
    Convention,
    Crop,
    DataPath,
    Deterministic,
    Device,
    FinetuneLearningRate,
    FinetuneShare,
    FoldsFile,
    GroupBy,
    ImagePattern,
    LabelNames,
    LabelPattern,
    Layout,
    LearningRate,
    NSegments,
    Optimizer,
    Seed,
    SkipCheck,
    Spacing,
    TargetOracle,
)
from voxpool_pipelines.predict_cli import SOME_FAILED, predict
from voxpool_pipelines.train_cli import train

app = typer.Typer(
    name="voxpool",
    help="Segmentation of medical volumes with supervoxel pooling. Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench_app, name="bench", help="Measure this machine: correctness first, then times.")
add_image_commands(app)
add_about_commands(app)
app.command()(predict)
app.command()(train)
app.command()(export)
app.command("import")(import_)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"voxpool {voxpool.__version__}")
        raise typer.Exit


@app.command()
def check(
    data: DataPath,
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds to check for.")] = 3,
    folds_file: FoldsFile = None,
    group_by: GroupBy = "subject",
    seed: Seed = 0,
) -> None:
    """Verify a data set before hours are spent: grids, labels, NaN, duplicates, classes in every fold."""
    from rich.console import Console

    from voxpool_pipelines.prepare import open_dataset, prepare_folds, require_sound

    console = Console()
    dataset = open_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names, console=console)
    splits = prepare_folds(
        dataset, folds=folds, seed=seed, group_by_subject=_grouped(group_by), given=folds_file, out=None
    )
    require_sound(dataset, splits, console)


@app.command()
def crossval(
    data: DataPath,
    out: Annotated[Path, typer.Option("--out", help="Run folder; give it again to go on.")],
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 3,
    folds_file: FoldsFile = None,
    only_folds: Annotated[str | None, typer.Option(help="Run these folds alone, such as '0' or '0 2'.")] = None,
    group_by: GroupBy = "subject",
    nets: Annotated[str, typer.Option(help="Networks: voxresnet segresnet guided_voxresnet.")] = "voxresnet",
    init: Annotated[str | None, typer.Option(help="Fine-tune this model package too; bundled: the one here.")] = None,
    convention: Convention = "ventricles-only",
    reductions: Annotated[str, typer.Option(help="VoxResNet's factors f.")] = "1 4 8",
    heads: Annotated[str, typer.Option(help="base v1 v2 v3.")] = "base v1 v2 v3",
    segments: Annotated[str, typer.Option(help="Kinds of supervoxels: block slic.")] = "block slic",
    control: Annotated[bool, typer.Option(help="Train the base on for the heads' share, to compare with.")] = True,
    iterations: Annotated[int | None, typer.Option(help="Training steps per network and fold.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time per network and fold, instead.")] = None,
    finetune_share: FinetuneShare = 0.25,
    crop: Crop = 96,
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = 1,
    optimizer: Optimizer = "adam",
    learning_rate: LearningRate = 4e-3,
    finetune_learning_rate: FinetuneLearningRate = 1e-3,
    auxiliary_weight: AuxiliaryWeight = 0.3,
    n_segments: NSegments = None,
    target_oracle: TargetOracle = 0.95,
    compactness: Compactness = "0.1",
    spacing: Spacing = "auto",
    seed: Seed = 0,
    deterministic: Deterministic = False,
    amp: Amp = "auto",
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="serial, dask or tcp://HOST:PORT of a Dask scheduler.")] = "serial",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of dask; by default one per processor.")] = None,
    skip_check: SkipCheck = False,
) -> None:
    """Cross-validate networks and supervoxel heads on a data set and write the report."""
    from voxpool_pipelines.config import parse_config

    config = parse_config(
        folds=folds,
        only_folds=words(only_folds, int, "--only-folds") if only_folds else None,
        nets=words(nets, str, "--nets"),
        init=init,
        convention=convention,
        reductions=words(reductions, int, "--reductions"),
        heads=words(heads, str, "--heads"),
        segments=words(segments, str, "--segments"),
        control=control,
        iterations=iterations,
        minutes=minutes,
        finetune_share=finetune_share,
        crop=crop,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        finetune_learning_rate=finetune_learning_rate,
        auxiliary_weight=auxiliary_weight,
        n_segments=n_segments,
        target_oracle=target_oracle,
        compactness=compactness,
        spacing=spacing_of(spacing),
        group_by_subject=_grouped(group_by),
        seed=seed,
        deterministic=deterministic,
        amp=amp,
    )
    from rich.console import Console

    from voxpool_pipelines.prepare import open_dataset, prepare_folds, require_sound

    console = Console()
    dataset = open_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names, console=console)
    splits = prepare_folds(
        dataset, folds=folds, seed=seed, group_by_subject=config.group_by_subject, given=folds_file, out=out
    )
    if not skip_check:
        require_sound(dataset, splits, console)
    # torch and MONAI are loaded only now: what is wrong with the data shows at once
    from voxpool_pipelines.crossval import crossval as run_crossval
    from voxpool_pipelines.report import write_report

    run_crossval(dataset, splits, config, out=out, device=device, console=console, engine=engine, workers=workers)
    paths = write_report(out)
    console.print(f"report: {paths.html}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Write the report of a run again, also of an unfinished one."""
    from voxpool_pipelines.images.report import write_images_report
    from voxpool_pipelines.report import write_report
    from voxpool_pipelines.run_folder import read_json

    of_images = (run / "run.json").is_file() and read_json(run / "run.json").get("kind") == "images"
    typer.echo(f"report: {write_images_report(run) if of_images else write_report(run).html}")


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B")],
    variant_a: Annotated[str | None, typer.Option(help="A variant of RUN_A, else all that both have.")] = None,
    variant_b: Annotated[str | None, typer.Option(help="A variant of RUN_B to compare it with.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Compare two runs case by case: paired differences, Wilcoxon test with Holm's correction."""
    from voxpool_pipelines.compare import compare_runs, render_json, render_text

    comparison = compare_runs(run_a, run_b, variant_a=variant_a, variant_b=variant_b)
    typer.echo(render_json(comparison) if json else render_text(comparison))


@app.command()
def supervoxels(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Volume: NIfTI, MGZ, NRRD or MHA.")],
    out: Annotated[Path, typer.Option("--out", help="Label map to write, .nii.gz; .json and .png go beside it.")],
    n_segments: Annotated[int, typer.Option(min=1, help="About how many supervoxels.")] = 8000,
    compactness: Annotated[float, typer.Option(help="Weight of space against intensity.")] = 0.1,
    masked: Annotated[bool, typer.Option("--mask/--no-mask", help="Keep to the brain or head.")] = True,
    labels: Annotated[Path | None, typer.Option(help="True labels to measure by.")] = None,
) -> None:
    """Cut a volume into supervoxels: a label map, measures and a picture of three slices with borders."""
    from rich.console import Console

    from voxpool_pipelines.supervoxels import write_supervoxels

    write_supervoxels(
        source,
        out,
        n_segments=n_segments,
        compactness=compactness,
        masked=masked,
        labels=labels,
        console=Console(),
    )


@app.command()
def view(
    files: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads the annotation at run time
        typer.Argument(metavar="[FILE...]", help="Volumes and DICOM folders to open."),
    ] = None,
) -> None:
    """Open the viewer: segment, review, correct, export."""
    from voxpool_pipelines.view import view as run_view

    raise typer.Exit(run_view(files or []))


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Folder of <case id>.nii.gz.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set with the label maps.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for scores.csv and scores.json.")],
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
) -> None:
    """Score label maps against a data set: Dice, HD95, ASSD and volumes per case and class."""
    from rich.console import Console

    from voxpool.data import find_dataset
    from voxpool_pipelines.evaluate import evaluate as run_evaluate

    dataset = find_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names)
    if run_evaluate(predictions, dataset, out=out, console=Console()):
        raise typer.Exit(SOME_FAILED)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    data: Annotated[Path, typer.Option("--data", help="The sample cohort.")] = Path("sample_data/cohort"),
) -> None:
    """Run the whole path on the sample cohort: base, V1, V2, V3 with cubes and SLIC over three folds."""
    from rich.console import Console

    from voxpool_pipelines.demo import run_demo

    run_demo(data, out, Console())


@app.command()
def pretrain(
    maps: Annotated[Path, typer.Argument(metavar="MAPS", help="Folder of whole-head label maps, 1 mm, *.nii.gz.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the training; give it again to go on.")],
    init: Annotated[str | None, typer.Option(help="Model package to begin from, or bundled.")] = None,
    context_iterations: Annotated[int, typer.Option(min=0, help="Steps of the context network.")] = 2700,
    detail_iterations: Annotated[int, typer.Option(min=1, help="Steps of the detail network.")] = 220,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a model for any MRI of a head from label maps alone, as the bundled model was."""
    from rich.console import Console

    from voxpool_pipelines.pretrain import pretrain as run_pretrain

    run_pretrain(
        maps,
        out,
        init=init,
        context_iterations=context_iterations,
        detail_iterations=detail_iterations,
        seed=seed,
        device=device,
        console=Console(),
    )


def _grouped(group_by: str) -> bool:
    if group_by not in ("subject", "none"):
        raise UsageError(f"--group-by must be subject or none, got {group_by!r}")
    return group_by == "subject"


def main() -> NoReturn:
    """Run the command; a user's mistake ends in one sentence and its exit code."""
    # huge pages spare most page faults of fresh tensors; torch reads this when it is imported
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    listen()
    try:
        try:
            app(join_lists(sys.argv[1:]))
        except Exception:  # of whatever kind: it may be what came of an interruption that was lost
            stop_if_interrupted()
            raise
    except (Interrupted, VoxpoolError) as error:
        typer.echo(f"voxpool: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
