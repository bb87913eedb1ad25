"""What one of Qt's bindings needs of a program."""

import sys

from qtpy import PYSIDE6

_RESERVE = 10_000_000
_nones: list[None] = []


def protect_none() -> None:
    """Keep Python 3.11 with PySide6 from ending the program.

    PySide6 6.12 gives back references to None that it never took, some with every signal; when none is left, Python
    ends, with whatever is open. From Python 3.12 on None is not counted. The reserve lasts for days of work (80 MB).
    """
    if PYSIDE6 and sys.version_info < (3, 12) and not _nones:
        _nones.extend([None] * _RESERVE)
