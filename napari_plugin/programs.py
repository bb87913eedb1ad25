"""Loading what a run needs, torch and MONAI, beside the window and by one thread at a time."""

import threading

_ONE_AT_A_TIME = threading.Lock()


def load_programs() -> None:
    """Import all that computing needs; to be called first by whatever computes in a thread.

    It takes seconds, so the panel begins with it before anybody waits. Two threads that import MONAI at once can
    leave it half loaded: its parts import each other.
    """
    with _ONE_AT_A_TIME:
        import voxpool.estimate  # noqa: F401 - for what it loads
