"""The errors that voxpool raises for a user's mistake, each with the exit code of the command line."""


class VoxpoolError(Exception):
    """Base class: the message is one sentence that says what, where, why and what to do.

    Attributes:
        exit_code: What the `voxpool` command exits with when this error ends it.
    """

    exit_code = 1


class UsageError(VoxpoolError, ValueError):
    """An option or argument that cannot be used (exit code 2)."""

    exit_code = 2


class InputError(VoxpoolError, ValueError):
    """A file or data set that cannot be used (exit code 3)."""

    exit_code = 3


class ModelError(VoxpoolError):
    """A model file that is refused (exit code 5)."""

    exit_code = 5


class Cancelled(VoxpoolError):
    """The caller stopped the work; what was done is saved (exit code 130)."""

    exit_code = 130


class ResourceError(VoxpoolError):
    """Memory, disk or device is missing (exit code 6)."""

    exit_code = 6
