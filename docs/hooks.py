"""MkDocs hook: the help of every command, as the command prints it, so that the page cannot go stale."""

import re
from typing import Any

from typer.testing import CliRunner

from voxpool_pipelines.cli import app

MARK = re.compile(r"^<!-- help: (.*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the output of `voxpool ... --help` in place of its mark."""
    return MARK.sub(lambda hit: f"```text\n{help_of(hit[1].split())}\n```", markdown)


def help_of(command: list[str]) -> str:
    """What a command says about itself in a terminal of 80 columns."""
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="voxpool", terminal_width=80, color=False)
    if result.exit_code:
        raise ValueError(f"voxpool {' '.join(command)} --help failed: {result.output}")
    return result.output.strip()
