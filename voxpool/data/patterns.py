"""Files of a folder matched by name patterns, and what a pattern's star stands for."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Match:
    """A file that a pattern found.

    Attributes:
        path: The file.
        star: What the pattern's stars stand for, "" without a star.
        folder: Its folder relative to the root, as parts joined by "_".
    """

    path: Path
    star: str
    folder: str


def list_files(root: Path) -> list[PurePosixPath]:
    """Lists all files below a folder, relative to it and sorted.

    Hidden ones are left out; links to folders are followed, each folder once.
    """
    files: list[PurePosixPath] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back to one of its own parents
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        files.extend(relative / name for name in names if not name.startswith("."))
    return sorted(files)


def match_files(root: Path, files: Iterable[PurePosixPath], pattern: str) -> list[Match]:
    """Finds the files that a pattern names, at any depth.

    Args:
        root: The folder that `files` are relative to.
        files: From `list_files`.
        pattern: A file name, or the end of a path, with `*`, `**`, `?` and `[...]` as in a shell.
    """
    expression = _expression(pattern)
    depth = pattern.count("/")
    found = []
    for file in files:
        hit = expression.fullmatch(file.as_posix())
        if hit is None:
            continue
        stars = list(dict.fromkeys(part.strip("/") for part in hit.groups() if part))
        above = file.parts[: len(file.parts) - 1 - depth] if not stars else file.parts[:-1]
        found.append(Match(root / file, "_".join(stars).replace("/", "_"), "_".join(above)))
    return found


def literal_length(pattern: str) -> int:
    """How many characters a pattern fixes: the more, the more specific it is."""
    return len(re.sub(r"\[[^]]*\]|[*?]", "", pattern))


def _expression(pattern: str) -> re.Pattern[str]:
    parts = ["(?:.*/)?"]
    for token in re.findall(r"\*\*/?|\*|\?|\[!?[^]]+\]|.", pattern.removeprefix("./")):
        if token.startswith("**"):
            parts.append("((?:.*/)?)" if token.endswith("/") else "(.*)")
        elif token == "*":
            parts.append("([^/]*)")
        elif token == "?":
            parts.append("[^/]")
        elif len(token) > 2 and token.startswith("["):
            inner = token[1:-1].replace("\\", "\\\\")
            parts.append(f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]")
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts))
