"""Voxels that lie in a file as a plain or gzipped stream of numbers, as in NIfTI and MGH."""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from voxpool.errors import InputError

from .header import VolumeHeader

# What may follow the voxels in a gzip stream before it counts as damaged, in bytes.
_MOST_EXTRA = 1 << 26


def open_stream(path: Path, gzipped: bool) -> IO[bytes]:
    """Opens the uncompressed content for reading."""
    # typed as a class of its own, which reads bytes all the same
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def read_start(path: Path, gzipped: bool, length: int) -> bytes:
    """Reads the first bytes of the uncompressed content, fewer where it ends before.

    Raises:
        InputError: E104, when it is damaged there.
    """
    try:
        with open_stream(path, gzipped) as stream:
            return stream.read(length)
    except (OSError, EOFError, zlib.error):
        raise InputError(
            f"{path.name}: ends early or is damaged inside its header; copy it again from its source (E104)"
        ) from None


def read_voxels(header: VolumeHeader, volume: int | None) -> np.ndarray:
    """Returns the stored numbers of one 3D volume, without scaling; the first axis runs fastest.

    Raises:
        InputError: E104 or E109.
        UsageError: When there is no such volume.
    """
    name = header.path.name
    chosen = header.chosen(volume)
    length = math.prod(header.dims[:3]) * header.dtype.itemsize
    try:
        with open_stream(header.path, header.gzipped) as stream:
            stream.seek(header.offset + chosen * length)
            data = stream.read(length)
            if header.gzipped:
                stream.seek(header.offset + header.volumes * length)
                _drain(stream, name)
    except EOFError:
        size, whole = header.path.stat().st_size, header.offset + header.volumes * length
        raise InputError(
            f"{name}: ends early: what its {size} bytes unpack to is not all of the {whole} bytes that the header"
            " claims; copy it again from its source (E104)"
        ) from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{name}: is damaged ({error}); copy it again from its source (E104)") from None
    if len(data) < length:
        raise InputError(
            f"{name}: ends early ({len(data)} of {length} bytes of voxels); copy it again from its source (E104)"
        )
    return np.frombuffer(data, dtype=header.dtype).reshape(header.dims[:3], order="F")


def _drain(stream: IO[bytes], name: str) -> None:
    """Reads on to the end of a gzip stream, where its checksum is compared; damage can make it longer."""
    for _ in range(_MOST_EXTRA >> 20):
        if not stream.read(1 << 20):
            return
    raise InputError(f"{name}: goes on far behind its voxels; it is damaged, copy it again (E104)")
