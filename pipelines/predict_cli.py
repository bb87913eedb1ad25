"""The command `voxpool predict`."""

from pathlib import Path
from typing import Annotated

import typer

from voxpool_pipelines.options import Device

SOME_FAILED = 4
"""Exit code of a command that did all but some cases."""


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Volumes (NIfTI, Analyze, MGZ, NRRD, MHA), DICOM folders, folders of them, manifests, BIDS data sets.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the label maps; give it again to go on.")],
    model: Annotated[Path, typer.Option("--model", help="Model package, or bundled: for any MRI of a head.")] = Path(
        "bundled"
    ),
    convention: Annotated[
        str | None, typer.Option(help="Merge the bundled model's classes: ventricles-only or all-csf.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Pattern of the files to take from folders.")] = None,
    device: Device = "auto",
    tile: Annotated[int | None, typer.Option(min=8, help="Side of the tiles in voxels; by default by memory.")] = None,
    uncertainty: Annotated[bool, typer.Option(help="Write how doubtful each supervoxel is, in percent.")] = False,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID to take of a DICOM folder.")] = None,
    volume: Annotated[int | None, typer.Option(min=0, help="Volume to take of 4D files, from 0.")] = None,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="Write DICOM SEG too, for DICOM inputs.")] = False,
    assume_affine: Annotated[
        bool, typer.Option("--assume-affine", help="Accept files that state no position.")
    ] = False,
    prefer: Annotated[str | None, typer.Option(help="sform or qform, where a file's two disagree.")] = None,
    nan_to_zero: Annotated[bool, typer.Option("--nan-to-zero", help="Replace NaN and infinite voxels by 0.")] = False,
    max_gb: Annotated[float, typer.Option(help="Largest volume in memory, in 10^9 bytes.")] = 4.0,
    engine: Annotated[str, typer.Option(help="auto, serial, dask or tcp://HOST:PORT of a Dask scheduler.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of dask; by default by memory.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads per scan; by default one for more than four scans, else all.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file that tells of the whole run.")] = None,
    record_paths: Annotated[
        bool, typer.Option("--record-paths", help="Name the inputs with their folders in the JSON files.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Segment again what is there already.")] = False,
) -> None:
    """Segment volumes and DICOM series: a label map on each input's grid and a JSON file with the volumes in mL."""
    from rich.console import Console

    from voxpool_pipelines.privacy import keep_private
    from voxpool_pipelines.scale import AUTO, DASK, PROGRAMS, import_early, suits_many
    from voxpool_pipelines.scans import list_scans

    keep_private()
    scans = list_scans(inputs, image)
    if device in ("auto", "cpu") and suits_many(len(scans)) and engine in (AUTO, DASK):
        import_early(PROGRAMS, threads=threads or 1)
    # torch and MONAI are loaded only now: seconds, in which the workers' programs are loaded too
    from voxpool_pipelines.predict import predict as run_predict
    from voxpool_pipelines.segment_scan import PredictOptions

    options = PredictOptions(
        model=model,
        device=device,
        tile=tile,
        convention=convention,
        uncertainty=uncertainty,
        series=series,
        volume=volume,
        dicom_seg=dicom_seg,
        assume_affine=assume_affine,
        prefer=prefer,
        nan_to_zero=nan_to_zero,
        max_gb=max_gb,
        threads=threads,
        overwrite=overwrite,
        record_paths=record_paths,
    )
    failed = run_predict(
        scans,
        options,
        out=out,
        console=Console(),
        engine=engine,
        workers=workers,
        report=report,
    )
    if failed:
        raise typer.Exit(SOME_FAILED)
