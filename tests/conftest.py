"""Fixtures that several tests share: a small cohort on disk, in several orientations."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from voxpool.data.phantom import phantom

AXCODES = ("RAS", "LAS", "PIR", "LIA", "RAS", "ASL")


def store(path: Path, array: np.ndarray, affine: np.ndarray, axcodes: str = "RAS") -> None:
    """Write an array of RAS order with its affine as NIfTI, its voxels stored in another order."""
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axcodes)))
    stored = nib.orientations.apply_orientation(array, change)
    image = nib.Nifti1Image(stored, affine @ inv_ornt_aff(change, array.shape))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantoms, `sub-N/sub-N_t1.nii.gz` and `sub-N_labels.nii.gz`, 2 mm, each in its own orientation."""
    folder = tmp_path_factory.mktemp("cohort")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for number, axcodes in enumerate(AXCODES):
        image, labels = phantom((36, 40, 32), seed=number, spacing=(2.0, 2.0, 2.0))
        case = folder / f"sub-{number}" / f"sub-{number}"
        store(Path(f"{case}_t1.nii.gz"), image, affine, axcodes)
        store(Path(f"{case}_labels.nii.gz"), labels, affine, axcodes)
    return folder
