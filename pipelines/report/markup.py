"""HTML and SVG as text: every value is escaped here and nowhere else."""

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is markup already and is not escaped again."""


def tag(name: str, /, *content: str | Iterable[str], **attributes: object) -> Markup:
    """An element with its content.

    Args:
        name: Name of the element.
        *content: Text, which is escaped, or markup, which is not; iterables of either are joined.
        **attributes: Attributes: `class_` loses its underscore, `data_x` becomes `data-x`, None and False are
            left out and True stands alone.

    Returns:
        The element; void ones (`img`, `input`) and empty SVG shapes are closed in place.
    """
    inner = join(*content)
    opening = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}"
    if not content and name not in _NEVER_VOID:
        return Markup(f"{opening}/>")
    return Markup(f"{opening}>{inner}</{name}>")


def join(*content: str | Iterable[str]) -> Markup:
    """Content after content, text escaped.

    Args:
        *content: Text or markup, or iterables of either.

    Returns:
        The markup.
    """
    parts: list[str] = []
    for each in content:
        if isinstance(each, Markup):
            parts.append(each)
        elif isinstance(each, str):
            parts.append(escape(each))
        else:
            parts.append(join(*each))
    return Markup("".join(parts))


def table(
    head: Iterable[Iterable[str]], body: Iterable[Iterable[str]], *, caption: str, **attributes: object
) -> Markup:
    """A table with a caption, in a frame that scrolls sideways and can be reached by keyboard.

    Args:
        head: Rows of `th` elements.
        body: Rows of `th` and `td` elements.
        caption: What the table shows.
        **attributes: Attributes of the table.

    Returns:
        The framed table.
    """
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", (tag("tr", row) for row in head)),
            tag("tbody", (tag("tr", row) for row in body)),
            **attributes,
        ),
        class_="scroll",
        role="region",
        tabindex="0",
        aria_label=caption,
    )


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


_NEVER_VOID = {"td", "th", "div", "span", "output", "g", "p", "section", "figure", "select", "button", "ul"}
