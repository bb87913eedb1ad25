"""Files that appear under their final name whole or not at all."""

import errno
import hashlib
import itertools
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from voxpool.errors import ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_counter = itertools.count()
# Process numbers say something on their own machine only, and runs may share a network folder.
_host = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `final`, and moves it there when the block ends without an error.

    The temporary name is hidden and ends like the final one, so writers that go by the extension work.
    Missing folders are made. What a killed process of this machine left for the same file is removed.

    Args:
        final: The file to write.

    Yields:
        The path to write to.

    Raises:
        ResourceError: When the disk is full (E602) or the folder cannot be written (E601); nothing is left.
    """
    final = Path(final)
    # A short tail keeps the extension and stays below the 255 bytes that a file name may have.
    tail = final.name if len(final.name.encode()) < 180 else final.name[-40:]
    temporary = final.with_name(f".part-{_host}-{os.getpid()}-{next(_counter)}-{tail}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final.parent, tail)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(
                f"{final.name}: the disk is full, nothing was written; free some space (E602)"
            ) from error
        if error.errno in _REFUSED and _is_about(error, temporary):
            raise ResourceError(
                f"{final.name}: cannot be written into {final.parent} ({error.strerror}); choose another folder (E601)"
            ) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_about(error: OSError, temporary: Path) -> bool:
    """Whether an error concerns the file to write, and not another one that the block opened."""
    return error.filename is not None and Path(error.filename) in (temporary, *temporary.parents)


def _remove_leftovers(folder: Path, tail: str) -> None:
    if os.name != "posix":  # there, signal 0 would end the process instead of asking for it
        return
    for name in os.listdir(folder):
        if not (name.startswith(f".part-{_host}-") and name.endswith(f"-{tail}")):
            continue
        pid = name.split("-")[2]
        if pid.isdigit() and not _is_running(int(pid)):
            with suppress(OSError):
                (folder / name).unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8, atomically.

    Args:
        path: The file.
        text: Its whole content.

    Raises:
        ResourceError: As `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes JSON atomically: keys in their own order, NaN and infinity as null, one newline at the end.

    Args:
        path: The file.
        obj: Mappings, sequences, numbers, text, None, paths, NumPy scalars and arrays.

    Raises:
        ResourceError: As `atomic_path`.
        TypeError: When `obj` holds something else.
    """
    write_text(path, json.dumps(_plain(obj), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(obj: Any) -> Any:
    if isinstance(obj, np.generic | np.ndarray):
        obj = obj.tolist()
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {key if isinstance(key, str) else str(_plain(key)): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, PurePath):
        return str(obj)
    return obj
