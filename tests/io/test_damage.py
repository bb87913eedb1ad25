"""A thousand damaged files of every format: a refusal or a volume comes out, soon, and without much memory."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.io.dicom_files import write_series
from voxpool.errors import InputError
from voxpool.io import read_dicom, read_geometry, read_labels, read_volume
from voxpool_pipelines.memory import peak_gigabytes, reset_peak

SHAPE = (9, 8, 7)
ARRAY = np.random.default_rng(3).integers(0, 900, SHAPE).astype(np.int16)
COUNT = 100  # of each of the ten kinds
SECONDS, GIGABYTES = 2.0, 1.0
EXTREMES = (b"-1", b"0", b"nan", b"1e308", b"99999999999", b"2147483647", b"x", b"")


def nifti(kind: type, name: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        nib.save(kind(ARRAY, np.diag([1, 2, 3, 1.0])), folder / name)
        return sorted(path for path in folder.iterdir() if path.suffix != ".mat")

    return write


def mgh(name: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        nib.MGHImage(ARRAY.astype(np.int32), np.eye(4)).to_filename(folder / name)
        return [folder / name]

    return write


def itk(name: str, compressed: bool) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY.T), str(folder / name), useCompression=compressed)
        return sorted(folder.iterdir())

    return write


def dicom(folder: Path) -> list[Path]:
    write_series(folder, ARRAY[:, :, :4])
    return sorted(folder.iterdir())[1:3]


KINDS = {
    "x.nii": nifti(nib.Nifti1Image, "x.nii"),
    "x.nii.gz": nifti(nib.Nifti2Image, "x.nii.gz"),
    "x.img": nifti(nib.Nifti1Pair, "x.img"),
    "x.mgh": mgh("x.mgh"),
    "x.mgz": mgh("x.mgz"),
    "x.nrrd": itk("x.nrrd", compressed=True),
    "x.nhdr": itk("x.nhdr", compressed=False),
    "x.mha": itk("x.mha", compressed=False),
    "x.mhd": itk("x.mhd", compressed=True),
    "": dicom,
}


def damaged(good: bytes, random: np.random.Generator) -> bytes:
    """A file that was cut off, grew, or has other bytes or other numbers near its start."""
    data = bytearray(good)
    near = min(len(data), 600)
    way = random.integers(5)
    if way == 0:
        return bytes(data[: random.integers(0, len(data))])
    if way == 1:
        place = int(random.integers(0, near))
        return bytes(data[:place] + random.bytes(int(random.integers(1, 40))) + data[place:])
    if way == 2:
        numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data[:near])))
        if numbers:
            chosen = numbers[int(random.integers(len(numbers)))]
            data[chosen.start() : chosen.end()] = EXTREMES[int(random.integers(len(EXTREMES)))]
            return bytes(data)
    for place in random.integers(0, near if way < 4 else len(data), random.integers(1, 9)):
        data[place] = random.integers(256) if way != 3 else (0, 127, 128, 255)[int(random.integers(4))]
    return bytes(data)


class TooLate(BaseException):
    """No `Exception`, and so no OSError, which readers make refusals of."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Limit the processor's time: what else the machine does is not the reader's fault."""

    def late(_number: int, _frame: object) -> None:
        raise TooLate(f"took more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("name", KINDS, ids=lambda name: name or "dicom")
def test_only_a_refusal_or_a_volume_comes_out(name: str, tmp_path: Path) -> None:
    files = KINDS[name](tmp_path)
    good = {path: path.read_bytes() for path in files}
    random = np.random.default_rng(len(name) + sum(name.encode()))
    readers = (read_volume, read_labels, read_geometry) if name else (read_dicom,)
    outcomes = {"read": 0, "refused": 0}
    reset_peak()
    before = peak_gigabytes()["cpu"]
    for number in range(COUNT):
        path = files[number % len(files)]
        path.write_bytes(damaged(good[path], random))
        for read in readers:
            try:
                with at_most(SECONDS):
                    found = read(tmp_path / name)
            except InputError:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
                array = getattr(found, "array", None)
                assert array is None or (np.isfinite(array).all() and array.shape == found.geometry.shape)
        path.write_bytes(good[path])
    assert peak_gigabytes()["cpu"] - before < GIGABYTES
    assert min(outcomes.values()) >= COUNT // 20, outcomes  # the damage is neither harmless nor total
    shutil.rmtree(tmp_path)
