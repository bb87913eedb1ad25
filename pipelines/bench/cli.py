"""The commands `voxpool bench`."""

from pathlib import Path
from typing import Annotated

import typer

from voxpool_pipelines.arguments import words
from voxpool_pipelines.options import DataPath, Device, ImagePattern, LabelNames, LabelPattern, Layout

bench_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@bench_app.command("pool")
def bench_pool(
    device: Device = "cpu",
    json: Annotated[Path | None, typer.Option(help="File for everything measured.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file: time over voxels and over supervoxels.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small maps: that it runs, not how fast.")] = False,
) -> None:
    """Time supervoxel pooling, other ways to do it, and what the memory's speed allows."""
    from rich.console import Console

    from voxpool_pipelines.bench.pool import run_bench_pool

    run_bench_pool(device=device, json=json, plot=plot, quick=quick, console=Console())


@bench_app.command("slic")
def bench_slic(
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Labelled images to measure too.")] = None,
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
    cases: Annotated[int, typer.Option(min=1, help="How many of the images.")] = 2,
    device: Device = "cpu",
    json: Annotated[Path | None, typer.Option(help="File for everything measured.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small phantoms: that it runs, not how fast.")] = False,
) -> None:
    """Time supervoxels beside scikit-image and SimpleITK, at the same number, with their accuracy."""
    from rich.console import Console

    from voxpool_pipelines.bench.slic import run_bench_slic
    from voxpool_pipelines.prepare import open_dataset

    console = Console()
    dataset = None
    if data is not None:
        dataset = open_dataset(
            data, layout=layout, image=image, labels=labels, label_names=label_names, console=console
        )
    run_bench_slic(dataset=dataset, cases=cases, device=device, json=json, quick=quick, console=console)


@bench_app.command("cohort")
def bench_cohort(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="A volume.")],
    model: Annotated[Path, typer.Option(help="Model package, or bundled.")] = Path("bundled"),
    copies: Annotated[int, typer.Option(min=5, help="How many copies of the scan.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes of dask.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="How often each engine is timed.")] = 1,
    json: Annotated[Path | None, typer.Option(help="File for everything measured.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file: scans over time, memory over scans.")] = None,
) -> None:
    """Time the segmentation of a cohort by one process and by several, and watch the driver's memory."""
    from rich.console import Console

    from voxpool_pipelines.bench.cohort import run_bench_cohort

    run_bench_cohort(
        scan, model=model, copies=copies, workers=workers, rounds=rounds, console=Console(), json=json, plot=plot
    )


@bench_app.command("heads")
def bench_heads(
    data: DataPath,
    model: Annotated[str, typer.Option(help="Model package, or bundled.")] = "bundled",
    convention: Annotated[str, typer.Option(help="ventricles-only or all-csf.")] = "ventricles-only",
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
    cases: Annotated[int | None, typer.Option(min=1, help="How many of the images; by default all.")] = None,
    degraded: Annotated[bool, typer.Option("--degraded", help="Segment what worse scanners would show too.")] = False,
    turned: Annotated[int, typer.Option(min=0, max=48, help="Store the first case in so many orientations too.")] = 0,
    device: Device = "auto",
    json: Annotated[Path | None, typer.Option(help="File for everything measured.")] = None,
) -> None:
    """Score a model of whole heads on labelled scans: as they are, and as worse scanners would show them."""
    from rich.console import Console

    from voxpool_pipelines.bench.heads import run_bench_heads
    from voxpool_pipelines.prepare import open_dataset

    console = Console()
    dataset = open_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names, console=console)
    run_bench_heads(
        dataset,
        model=model,
        convention=convention,
        cases=cases,
        degraded=degraded,
        turned=turned,
        device=device,
        json=json,
        console=console,
    )


@bench_app.command("nets")
def bench_nets(
    nets: Annotated[str, typer.Option(help="Networks, see `voxpool nets`.")] = "enet fast_scnn spssn swiftnet_rn18",
    size: Annotated[str, typer.Option(help="Height and width of the image.")] = "512 1024",
    image: Annotated[Path | None, typer.Option(help="An image file; else one is made.")] = None,
    tau: Annotated[str, typer.Option(help="Thresholds for blocks of two resolutions.")] = "0.2 0.3 0.5",
    block: Annotated[int, typer.Option(min=4, help="Side of a block in pixels.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each time.")] = 7,
    amp: Annotated[str, typer.Option(help="bfloat16: auto, bf16 or off.")] = "auto",
    device: Device = "cpu",
    json: Annotated[Path | None, typer.Option(help="File for everything measured.")] = None,
) -> None:
    """Time networks for images: alone, with superpixels, with blocks of two resolutions; GMAC and memory."""
    from rich.console import Console

    from voxpool.errors import UsageError
    from voxpool.nets2d import PLANAR_NETS
    from voxpool_pipelines.bench.nets import Plan, run_bench_nets

    names, sides = words(nets, str, "--nets"), words(size, int, "--size")
    unknown = [name for name in names if name not in PLANAR_NETS]
    if unknown or len(sides) != 2 or amp not in ("auto", "bf16", "off"):
        raise UsageError(
            f"--nets takes some of {', '.join(PLANAR_NETS)}, --size height and width, --amp auto, bf16 or off;"
            f" got {nets!r}, {size!r}, {amp!r}"
        )
    what = Plan(
        size=(sides[0], sides[1]),
        image=image,
        thresholds=words(tau, float, "--tau"),
        block=block,
        amp=amp,  # type: ignore[arg-type]  # checked above
        samples=samples,
    )
    run_bench_nets(names, what, device=device, json=json, console=Console())


@bench_app.command("blocks")
def bench_blocks(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Package of a VoxResNet without head.")],
    data: DataPath,
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
    tau: Annotated[str, typer.Option(help="Thresholds for blocks of two resolutions.")] = "0 0.1 0.2 0.3",
    block: Annotated[int, typer.Option(min=8, help="Side of a block in voxels.")] = 16,
    cases: Annotated[int | None, typer.Option(min=1, help="How many of the images; by default all.")] = None,
    device: Device = "auto",
    json: Annotated[Path | None, typer.Option(help="File for everything measured.")] = None,
) -> None:
    """Dice and time of a network for volumes that computes simple blocks at half resolution."""
    from rich.console import Console

    from voxpool_pipelines.bench.blocks import run_bench_blocks
    from voxpool_pipelines.prepare import open_dataset

    console = Console()
    dataset = open_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names, console=console)
    run_bench_blocks(
        model,
        dataset,
        thresholds=words(tau, float, "--tau"),
        block=block,
        cases=cases,
        device=device,
        json=json,
        console=console,
    )
