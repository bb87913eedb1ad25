"""The command `voxpool export`."""

from pathlib import Path
from typing import Annotated

import typer

from voxpool.errors import UsageError
from voxpool_pipelines.arguments import words

SPARE = 2
"""SLIC makes about as many supervoxels as asked for; up to so many times as many have a place."""


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model package.")],
    onnx: Annotated[Path | None, typer.Option("--onnx", help="ONNX file to write.")] = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Folder to write as a MONAI bundle.")] = None,
    size: Annotated[str | None, typer.Option(help="ONNX: voxels per axis of the image, such as '160 192 160'.")] = None,
    num_segments: Annotated[
        int | None, typer.Option(min=1, help="ONNX: most supervoxels of an image; by default twice the model's number.")
    ] = None,
) -> None:
    """Write a model for other programs: as ONNX, with pooling in standard operations, or as a MONAI bundle."""
    if (onnx is None) == (bundle is None):
        raise UsageError("give either --onnx with --size, or --bundle")
    if bundle is not None:
        from voxpool.bundle_export import export_bundle

        typer.echo(f"bundle: {export_bundle(model, bundle)}")
        return
    if size is None:
        raise UsageError("--onnx needs the --size of an image in voxels, such as '160 192 160'")
    sizes = words(size, int, "--size")

    from voxpool.model_package import load_package
    from voxpool.onnx_export import export_onnx

    net, info = load_package(model)
    if num_segments is None and info.supervoxels is not None:
        num_segments = SPARE * info.supervoxels.n_segments
    export_onnx(net, info, onnx, size=sizes, num_segments=num_segments)
    typer.echo(f"ONNX: {onnx}")
