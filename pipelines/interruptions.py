"""Ctrl-C and SIGTERM end the work wherever it is, and nothing takes them for a failure of a scan or a file."""

import signal
from typing import NoReturn

_received: list["Interrupted"] = []


class Interrupted(BaseException):
    """The process was asked to end (exit code 128 and the number of the signal: 130 or 143).

    It is no `Exception`, since it is raised between any two instructions: what tells of a damaged file, or goes on with
    the next scan, would take it for that.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; the same command goes on where it stopped")
        self.exit_code = 128 + number


def listen() -> None:
    """Have both signals raise `Interrupted` in this process's main thread."""
    _received.clear()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def stop_if_interrupted() -> None:
    """Raise an interruption again whose exception was lost.

    A callback of a C library cannot raise it: numba's compiler, interrupted in one of LLVM's, fails otherwise.

    Raises:
        Interrupted: If the process was asked to end.
    """
    if _received:
        raise _received[0]


def _interrupt(number: int, _frame: object) -> NoReturn:
    _received.append(Interrupted(number))
    raise _received[-1]
