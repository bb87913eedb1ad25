"""One segmentation, to be run in a thread: the window starts it and looks at its state."""

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_voxpool.display import shown_by
from napari_voxpool.failures import sentence_of
from napari_voxpool.programs import load_programs
from napari_voxpool.session import SegmentationSession
from voxpool.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from napari.layers import Image

DEVICES = ("auto", "cpu", "cuda")

_SURE = 0.2  # share of the work after which the rest can be foretold


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        session: The result, or None if there is none.
        message: One sentence for the user.
        error: What ended the run, if it failed.
    """

    session: SegmentationSession | None
    message: str
    error: Exception | None = None


CANCELLED = Outcome(None, sentence_of(Cancelled()))


class Job:
    """A segmentation of one layer, to be run once, in a thread.

    Args:
        layer: The image.
        package: What `Segmenter.load` takes: a folder, or "bundled".
        device: "auto", or a torch device.
        convention: How the classes of a model of whole heads merge; None to keep them.

    Attributes:
        stage: What is being done.
        fraction: How much of all is done, 0 to 1.
    """

    def __init__(self, layer: "Image", package: str, *, device: str = "auto", convention: str | None = None) -> None:
        self.layer = layer
        self.package = package
        self.device = device
        self.convention = convention
        self.stage = "loading"
        self.fraction = 0.0
        self._stop = threading.Event()
        self._start = time.monotonic()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Ask the run to stop; it ends at its next check, without a result."""
        self._stop.set()

    def run(self) -> Outcome:
        """Segment the layer; whatever goes wrong ends here as a sentence."""
        try:
            return self._segment()
        except Cancelled:
            return CANCELLED
        except Exception as error:  # of whatever kind: the panel says it, with the details behind a button
            return Outcome(None, sentence_of(error), error)

    def time_left(self) -> str:
        """How long the run will take from now on, in words; nothing as long as that is a guess."""
        passed = time.monotonic() - self._start
        if not _SURE < self.fraction < 1:
            return ""
        return f" about {max(1, round(passed * (1 - self.fraction) / self.fraction))} s left"

    def _segment(self) -> Outcome:
        self._report("loading", 0.0)
        load_programs()
        from voxpool.inference import Segmenter

        segmenter = Segmenter.load(self.package, device=self.device)
        self._report("reading the layer", 0.0)
        shown = shown_by(self.layer)
        found = segmenter.segment(
            shown.volume,
            convention=self.convention,
            progress=lambda stage, fraction: self._report(stage, 0.95 * fraction),
            cancelled=lambda: self.cancelled,
        )
        self._report("supervoxels", 0.95)
        session = SegmentationSession.begin(shown, found, self.package)
        self._report("done", 1.0)
        done = f"Done in {found.seconds:.1f} s; {found.quality:.0%} of the labels should be right."
        remarks = [f" Note: {notice}." for notice in found.notices]
        remarks += [f" Warning: {warning}." for warning in found.warnings]
        return Outcome(session, done + "".join(remarks))

    def _report(self, stage: str, fraction: float) -> None:
        self.stage, self.fraction = stage, fraction
        if self.cancelled:
            raise Cancelled(f"stopped at {stage}")


def new_job(layer: "Image | None", package: str, device: str, convention: str | None = None) -> Job:
    """Check what the window's fields say and make a job of it.

    Raises:
        UsageError: If there is no image.
    """
    if layer is None:
        raise UsageError("there is no image layer; open a volume first")
    return Job(layer, package, device=device, convention=convention)
