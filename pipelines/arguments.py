"""Options that take several values, and the check of all options of a command."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from voxpool.errors import UsageError

if TYPE_CHECKING:
    import pydantic

Word = TypeVar("Word", str, int, float)
Options = TypeVar("Options", bound="pydantic.BaseModel")


def words(text: str, kind: type[Word], option: str) -> tuple[Word, ...]:
    """The values of an option that takes several.

    Args:
        text: The values, separated by spaces or commas.
        kind: What each must be.
        option: The option's name, for the error.

    Raises:
        UsageError: If a value is none of that kind.
    """
    try:
        return tuple(kind(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise UsageError(f"{option} takes {kind.__name__} values separated by spaces, got {text!r}") from error


def checked(model: type[Options], options: Mapping[str, Any]) -> Options:
    """The options of a command, checked.

    Args:
        model: What they must be.
        options: By name.

    Raises:
        UsageError: With one sentence on the first thing wrong.
    """
    import pydantic

    try:
        return model(**options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(part) for part in first["loc"][:1]).replace("_", "-") + ": " if first["loc"] else ""
        raise UsageError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error


# options that take several values, and what their values look like
_LISTS = {
    "--reductions": r"\d+",
    "--only-folds": r"\d+",
    "--heads": r"base|superpixels|v\d+[a-z]*",
    "--segments": r"block|slic",
    "--nets": r"[a-z][a-z0-9_]*",
    "--spacing": r"[\d.]+",
    "--size": r"\d+",
    "--scale": r"[\d.]+",
    "--tau": r"[\d.]+",
}


def join_lists(arguments: list[str]) -> list[str]:
    """Arguments with the values of a list option in one: `--reductions 8 4` as `--reductions "8 4"`."""
    joined: list[str] = []
    pattern: str | None = None
    for argument in arguments:
        if pattern and joined[-1] not in _LISTS and re.fullmatch(pattern, argument):
            joined[-1] += f" {argument}"
            continue
        if not (joined and joined[-1] in _LISTS):
            pattern = _LISTS.get(argument)
        joined.append(argument)
    return joined


def spacing_of(text: str) -> str | tuple[float, ...]:
    """The option --spacing: "auto" or "native", or millimetres per axis.

    Raises:
        UsageError: If it is neither a word nor numbers.
    """
    return text if text in ("auto", "native") else words(text, float, "--spacing")
