"""DICOM series made for tests."""

import locale
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (9, 10, 6)
SPACING = (1.5, 0.8, 2.5)


def turn(degrees: float) -> np.ndarray:
    """A rotation about two axes."""
    a = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return x @ z


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    uid: str = "1.2.3",
    name: str = "t1",
    rotation: np.ndarray | None = None,
    shear: float = 0.0,
    rescale: tuple[float, float] = (1, 0),
    skip: tuple[int, ...] = (),
    order: int = 1,
) -> None:
    """Write (x, y, z) as DICOM files, the last slice first for order -1."""
    folder.mkdir(parents=True, exist_ok=True)
    rotation = np.eye(3) if rotation is None else rotation
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    before = locale.setlocale(locale.LC_CTYPE)
    for number in range(array.shape[2])[::order]:
        if number in skip:
            continue
        plane = sitk.GetImageFromArray(array[:, :, number].T[None].astype(np.int16))
        plane.SetSpacing((SPACING[0], SPACING[1], SPACING[2]))
        position = rotation @ [0, shear * number, SPACING[2] * number] + [-30, 12, 5]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0060": "MR",
            "0010|0010": "Janedoe",
            "0018|0050": str(SPACING[2]),
            "0010|0020": "P1",
            "0020|0052": "1.2.3.99",
            "0008|103e": name,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{number + 1}",
            "0020|0013": str(number),
            "0020|0032": "\\".join(f"{each:.8f}" for each in position),
            "0020|0037": "\\".join(f"{each:.8f}" for each in rotation[:, :2].T.ravel()),
            "0028|1053": str(rescale[0]),
            "0028|1052": str(rescale[1]),
        }
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}-{number if order == 1 else 100 - number:03d}.dcm"))
        writer.Execute(plane)
    locale.setlocale(locale.LC_CTYPE, before)  # GDCM leaves the process in ASCII when it writes; not when it reads
