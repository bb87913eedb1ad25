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

# of commands that train
FinetuneShare = Annotated[float, typer.Option(help="Steps of a head, as a share of the base's.")]
Crop = Annotated[int, typer.Option(help="Side of a training crop in voxels.")]
Optimizer = Annotated[str, typer.Option(help="adam or sgd.")]
LearningRate = Annotated[float, typer.Option(help="Learning rate of the base at the start.")]
FinetuneLearningRate = Annotated[float, typer.Option(help="Learning rate of a head at the start.")]
AuxiliaryWeight = Annotated[float, typer.Option(help="Weight of deep supervision at the start.")]
NSegments = Annotated[int | None, typer.Option(help="Supervoxels per volume; else chosen by the oracle.")]
TargetOracle = Annotated[float, typer.Option(help="Oracle Dice that the supervoxels shall reach.")]
Compactness = Annotated[str, typer.Option(help="Compactness of SLIC; auto: choose it with the number.")]
Spacing = Annotated[str, typer.Option(help="Working voxel size: auto, native or mm, such as '1 1 1'.")]
Deterministic = Annotated[bool, typer.Option(help="Byte-identical results from run to run.")]
Amp = Annotated[str, typer.Option(help="bfloat16: auto, bf16 or off.")]
SkipCheck = Annotated[bool, typer.Option(help="Do not verify the data set first.")]
Convention = Annotated[str, typer.Option(help="How its classes merge: ventricles-only or all-csf.")]
