"""What a long command shows: a live bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from voxpool.engine import Progress as Training

LINE_SECONDS = 20.0

Update = Callable[[float, str], None]


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def show_training(update: Update, state: "Training") -> None:
    """Say where a training stands.

    Args:
        update: What `task` gives.
        state: Its progress.
    """
    update(
        state.iteration / state.iterations,
        f"iteration {state.iteration}/{state.iterations} loss {state.loss:.3f} Dice {state.dice:.3f}"
        f" left {clock(state.seconds_left)}",
    )


@contextmanager
def task(console: Console, name: str, *, say_done: bool = True) -> Iterator[Update]:
    """Show one piece of work.

    Args:
        console: Where to show it.
        name: What is done.
        say_done: Whether to end with a line that says how long it took.

    Yields:
        A function to call with the fraction done and a short text (loss, Dice, time left).
    """
    start = time.perf_counter()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} % {task.fields[text]}"),
        )
        with Progress(*columns, console=console, transient=True) as bars:
            bar = bars.add_task(name, total=1.0, text="")
            yield lambda fraction, text: bars.update(bar, completed=fraction, text=text)
    else:
        last = [start]

        def line(fraction: float, text: str) -> None:
            if time.perf_counter() - last[0] >= LINE_SECONDS:
                last[0] = time.perf_counter()
                console.print(f"{name}: {100 * fraction:.0f} % {text}", highlight=False, soft_wrap=True)

        yield line
    if say_done:
        console.print(f"{name}: done in {clock(time.perf_counter() - start)}", highlight=False, soft_wrap=True)
