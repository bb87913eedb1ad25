"""Start the viewer, a program of its own: the window's packages are loaded by it alone."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from voxpool.errors import InputError, ResourceError


def view(files: Sequence[Path]) -> int:
    """Open the viewer and wait until it is closed.

    Args:
        files: Volumes to open.

    Returns:
        The viewer's exit status.

    Raises:
        InputError: If a file is not there.
        ResourceError: If napari is not installed.
    """
    for file in files:
        if not file.exists():
            raise InputError(f"no such file: {file}; check the name")
    if importlib.util.find_spec("napari") is None:
        raise ResourceError('the viewer needs napari, which is not installed; run pip install "voxpool[napari]"')
    return subprocess.run([sys.executable, "-m", "napari_voxpool", *map(str, files)], check=False).returncode
