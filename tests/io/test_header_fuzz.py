"""Headers with random damage: a refusal or a volume comes out, never another error, and never much memory."""

import gzip
import tracemalloc
import warnings

import nibabel
import numpy as np
import pytest

from voxpool.errors import InputError
from voxpool.io import read_labels, read_volume, write_volume


def read_or_refuse(read, path):
    """Returns a volume, or the sentence of the refusal."""
    try:
        return read(path)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_headers_are_refused_or_read(tmp_path, kind, suffix):
    good = kind(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([1, 2, 3, 1])).to_bytes()
    rng = np.random.default_rng(20260)
    path = tmp_path / f"bad{suffix}"
    read, refused = 0, 0
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            data = bytearray(good)
            for position in rng.integers(0, 352 if kind is nibabel.Nifti1Image else 544, rng.integers(1, 9)):
                data[position] = rng.integers(0, 256)
            path.write_bytes(gzip.compress(bytes(data), 1) if suffix == ".nii.gz" else bytes(data))
            for reader in (read_volume, read_labels):
                result = read_or_refuse(reader, path)
                if isinstance(result, str):
                    refused += 1
                    assert result.startswith(path.name)
                else:
                    read += 1
                    assert result.array.shape == result.geometry.shape
                    write_volume(tmp_path / "again.nii.gz", result.array, result)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert min(read, refused) > 20  # both ways were taken: the damage is neither harmless nor total


def test_damaged_gzip_streams_are_refused(tmp_path):
    array = np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype(np.int16)
    good = gzip.compress(nibabel.Nifti1Image(array, np.eye(4)).to_bytes(), mtime=0)
    rng = np.random.default_rng(7)
    path = tmp_path / "bad.nii.gz"
    for _ in range(200):
        data = bytearray(good)
        # Behind the ten bytes of gzip's own header, whose time stamp and system byte say nothing.
        data[rng.integers(10, len(data))] ^= rng.integers(1, 256)
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"^bad\.nii\.gz: "):
            read_volume(path)
