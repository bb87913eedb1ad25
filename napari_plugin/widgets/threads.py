"""Work that takes long, beside the window."""

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget


def in_thread(
    owner: QWidget,
    work: Callable[..., Any],
    then: Callable[[Any], None],
    *arguments: object,
    failed: Callable[[Exception], None],
) -> None:
    """Do `work` in a thread, and then what follows in the window's own.

    Args:
        owner: What follows is left out when this widget is gone by then.
        work: What takes long.
        then: Gets what `work` returned.
        arguments: For `work`.
        failed: Gets the error that ended the work: one that escapes from a thread would pop up as a traceback.
    """

    def guarded() -> tuple[Any, Exception | None]:
        try:
            return work(*arguments), None
        except Exception as error:  # of whatever kind: escaping, it would be a traceback in the window
            return None, error

    def end(result: tuple[Any, Exception | None]) -> None:
        if not isalive(owner):
            return
        found, error = result
        if error is None:
            then(found)
        else:
            failed(error)

    worker = create_worker(guarded, _start_thread=False)
    worker.returned.connect(end)
    worker.start()


def ignored(_: Exception) -> None:
    """For work whose failure a run will tell of anyway."""
