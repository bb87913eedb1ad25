"""Work that takes long, beside the window."""

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget


def in_thread(owner: QWidget, work: Callable[..., Any], then: Callable[[Any], None], *arguments: object) -> None:
    """Do `work` in a thread, and then what follows in the window's own.

    Args:
        owner: What follows is left out when this widget is gone by then.
        work: Must not raise: an error that escapes from a thread pops up as a traceback.
        then: Gets what `work` returned.
        arguments: For `work`.
    """
    worker = create_worker(work, *arguments, _start_thread=False)
    worker.returned.connect(lambda result: isalive(owner) and then(result))
    worker.start()
