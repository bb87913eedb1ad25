"""Runs the code of the documentation, page by page, as a reader would, and compares what it prints.

Blocks marked `python` and `bash` are run; a block marked `text` right after one shows its output; blocks
marked `console` are not run, since they need a window, minutes, or the reader's own data.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from voxpool.nets import NETS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *(page for part in ("tutorials", "how-to", "explanation") for page in sorted((DOCS / part).glob("*.md"))),
]
RUN = ("python", "bash")
KNOWN = (*RUN, "text", "console")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line that its first line has there."""

    language: str
    code: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(hit[1], hit[2], text.count("\n", 0, hit.start()) + 2) for hit in _FENCE.finditer(text)]


def run_python(block: Block, page: Path, namespace: dict[str, object]) -> str:
    # Empty lines in front: a traceback then names the line of the page.
    source = "\n" * (block.line - 1) + block.code
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(source, str(page), "exec"), namespace)
    return output.getvalue()


def run_bash(block: Block, page: Path) -> str:
    here = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join((here, os.environ["PATH"])), "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block.code],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{page.name}:{block.line} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def first_missing(shown: str, output: str) -> str | None:
    """The first shown line that the output lacks, searched from one shown line to the next."""
    printed = " ".join(output.split())
    position = 0
    for line in shown.splitlines():
        wanted = " ".join(line.split())
        pattern = ".*?".join(re.escape(part) for part in wanted.split("…"))
        hit = re.compile(pattern).search(printed, position)
        if hit is None:
            return line
        position = hit.end()
    return None


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with the sample data, as in a clone; what a page changes in this process is undone."""
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    nets, threads, state = dict(NETS), torch.get_num_threads(), torch.get_rng_state()
    yield tmp_path
    NETS.clear()
    NETS.update(nets)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_of_page_runs_and_prints_what_it_shows(page, reader):
    # napari and dataclasses look a class's module up by this name
    namespace: dict[str, object] = {"__name__": "__main__"}
    output: str | None = None
    for block in blocks_of(page):
        assert block.language in KNOWN, f"{page.name}:{block.line}: kind {block.language!r}"
        if block.language == "text" and output is not None:
            missing = first_missing(block.code, output)
            assert missing is None, f"{page.name}:{block.line} shows {missing!r}, but printed is:\n{output}"
        output = None
        if block.language == "python":
            output = run_python(block, page, namespace)
        elif block.language == "bash":
            output = run_bash(block, page)


@pytest.mark.parametrize("page", ["clinician", "researcher", "programmer"])
def test_tutorials_hold_code_that_is_run_and_output_that_is_compared(page):
    languages = [block.language for block in blocks_of(DOCS / "tutorials" / f"{page}.md")]
    shown = sum(one in RUN and other == "text" for one, other in pairwise(languages))
    assert shown >= 3


@pytest.mark.parametrize(
    ("shown", "output", "missing"),
    [
        ("a … c\n", "x a b  c\n", None),
        ("a\nb\n", "b\na\n", "b"),
        ("Dice …, ok\n", "Dice 0.5,\nok\n", None),
        ("1.5\n", "125\n", "1.5"),
    ],
)
def test_first_missing_compares_line_by_line(shown, output, missing):
    assert first_missing(shown, output) == missing
