"""What a person is told when something fails: one sentence, and the details behind a button."""

import platform
import traceback

from voxpool import __version__
from voxpool.errors import Cancelled, VoxpoolError


def sentence_of(error: BaseException) -> str:
    """What happened and what to do, in one sentence."""
    if isinstance(error, Cancelled):
        return "Cancelled; nothing was changed."
    if isinstance(error, VoxpoolError):
        return f"{error}."
    if isinstance(error, MemoryError):
        return "There is not enough memory; close other programs, or other volumes, and try again."
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; check the disk and the folder's permissions."
    return f"Something unforeseen failed ({error}); nothing was changed, the details say where."


def details_of(error: BaseException) -> str:
    """What a report of the failure should hold: versions, and where in the program it happened."""
    versions = f"voxpool {__version__}, Python {platform.python_version()}, {platform.system()}"
    return f"{versions}\n\n{''.join(traceback.format_exception(error))}"
