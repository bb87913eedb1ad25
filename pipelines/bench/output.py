"""What both benchmarks do with what they found: files asked for, and lines for the terminal."""

from pathlib import Path

from rich.console import Console

from voxpool.errors import ResourceError, UsageError


def require_folder(path: Path | None) -> None:
    """Refuse a file that cannot be written before minutes are spent on what it shall hold."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be written into {path.parent}; choose another folder") from error
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
