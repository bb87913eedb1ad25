"""A small volume with labels, written sound or spoilt, and a small model, for tests of what users bring."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from voxpool.data.transforms import PreprocessConfig
from voxpool.model_package import ModelInfo, save_package

SHAPE = (12, 14, 10)
X, Y, Z = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
LABELS = np.digitize(-np.sqrt(X**2 + Y**2 + Z**2), [-0.95, -0.7, -0.4]).astype(np.uint8)
IMAGE = (100.0 * LABELS + np.random.default_rng(0).normal(0, 5, SHAPE) * (LABELS > 0)).astype(np.float32)


def image(array: np.ndarray = IMAGE, affine: np.ndarray | None = None, **fields: object) -> nib.Nifti1Image:
    affine = np.diag([1.0, 1.0, 1.2, 1.0]) if affine is None else affine
    made = nib.Nifti1Image(array, affine)
    made.set_sform(affine, 1)
    if np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 0:
        made.set_qform(affine, 1)
    made.header.set_xyzt_units("mm")
    for name, value in fields.items():
        made.header[name] = value
    return made


def save(folder: Path, made: nib.Nifti1Image, name: str = "x.nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made.to_filename(folder / name)
    return folder / name


def save_untrained(folder: Path, *, seed: int) -> Path:
    """The package of a small network without a head, its weights those of the seed."""
    torch.manual_seed(seed)
    info = ModelInfo(
        net="voxresnet", net_options={"reduction": 8}, head="base", channels=("T1",),
        label_names={0: "BG", 1: "CSF", 2: "GM", 3: "WM"}, convention="test",
        preprocess=PreprocessConfig(), supervoxels=None,
    )  # fmt: skip
    return save_package(info.create(), info, folder)
