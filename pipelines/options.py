"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Optional

import typer

DataPath = Annotated[Path, typer.Argument(metavar="DATA", help="Folder, manifest (.csv, .tsv) or dataset.json.")]
Layout = Annotated[str, typer.Option(help="auto, ibsr, folder, manifest, nnunet or msd.")]
ImagePattern = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--image", help="Pattern of the images, such as '*_t1.nii.gz'; once per channel."),
]
LabelPattern = Annotated[str | None, typer.Option("--labels", help="Pattern of the label maps.")]
LabelNames = Annotated[str | None, typer.Option(help="Names of the label values: 0=BG,1=CSF,2=GM,3=WM.")]
FoldsFile = Annotated[Path | None, typer.Option(help="folds.json with the splits to use.")]
GroupBy = Annotated[str, typer.Option(help="subject: no subject in two folds; none: deal single cases.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of folds, weights and training.")]
