"""What a training tells of itself: running means, `log.csv` and TensorBoard events."""

import csv
import io
import math
from pathlib import Path

from voxpool.io import write_text

LOG_EVERY = 10
"""Steps from row to row."""


class RunningMean:
    """Exponential means of loss and Dice, for progress and log."""

    DECAY = 0.95

    def __init__(self, loss: float, dice: float) -> None:
        self.loss, self.dice = loss, dice

    def add(self, loss: float, dice: float | None) -> None:
        """Take in a step; its Dice is None or NaN where none was measured."""
        self.loss = self._mix(self.loss, loss, self.DECAY)
        if dice is not None and not math.isnan(dice):
            self.dice = self._mix(self.dice, dice, self.DECAY**LOG_EVERY)

    @staticmethod
    def _mix(mean: float, value: float, decay: float) -> float:
        return value if math.isnan(mean) else decay * mean + (1 - decay) * value


class TrainingLog:
    """`log.csv` and TensorBoard events; rows of a session that was killed after its last checkpoint are dropped."""

    COLUMNS = ("iteration", "loss", "dice", "learning_rate")

    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.csv"
        rows = [list(self.COLUMNS)]
        if done and path.exists():
            old = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))[1:]
            rows += [row for row in old if len(row) == len(self.COLUMNS) and int(row[0]) <= done]
        write_text(path, "".join(",".join(row) + "\n" for row in rows))
        self.file = path.open("a", encoding="utf-8")
        self.events = SummaryWriter(folder / "tensorboard", purge_step=done)

    def add(self, iteration: int, running: RunningMean, rate: float) -> None:
        """Write one row."""
        self.file.write(f"{iteration},{running.loss:.6f},{running.dice:.6f},{rate:.6g}\n")
        self.file.flush()
        self.events.add_scalar("loss", running.loss, iteration)
        self.events.add_scalar("dice", running.dice, iteration)
        self.events.add_scalar("learning_rate", rate, iteration)

    def close(self) -> None:
        """Close both files."""
        self.file.close()
        self.events.close()
