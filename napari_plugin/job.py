"""One segmentation, to be run in a thread: the window starts it and looks at its state."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_voxpool.display import shown_by
from napari_voxpool.session import SegmentationSession
from voxpool.errors import Cancelled, UsageError, VoxpoolError

if TYPE_CHECKING:
    from napari.layers import Image

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        session: The result, or None if there is none.
        message: One sentence for the user.
    """

    session: SegmentationSession | None
    message: str


CANCELLED = Outcome(None, "Cancelled; nothing was changed.")


class Job:
    """A segmentation of one layer, to be run once, in a thread.

    Args:
        layer: The image.
        package: Folder of the model package, or "bundled".
        device: "auto", or a torch device.
        convention: How the classes of a model of whole heads merge; None to keep them.

    Attributes:
        stage: What is being done.
        fraction: How much of all is done, 0 to 1.
    """

    def __init__(
        self, layer: "Image", package: Path | str, *, device: str = "auto", convention: str | None = None
    ) -> None:
        self.layer = layer
        self.package = package
        self.device = device
        self.convention = convention
        self.stage = "loading"
        self.fraction = 0.0
        self._stop = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Ask the run to stop; it ends at its next check, without a result."""
        self._stop.set()

    def run(self) -> Outcome:
        """Segment the layer.

        A mistake of the user's ends here as a sentence: an error that escapes from a thread pops up as a
        traceback.
        """
        try:
            return self._segment()
        except Cancelled:
            return CANCELLED
        except MemoryError:
            return Outcome(None, "There is not enough memory; close other programs, or other volumes, and try again.")
        except VoxpoolError as error:
            return Outcome(None, f"{error}.")

    def _segment(self) -> Outcome:
        # torch and MONAI take seconds to import: in this thread, the window stays alive.
        from voxpool.inference import Segmenter

        self._report("loading", 0.0)
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
        return Outcome(session, done + "".join(f" Warning: {warning}." for warning in found.warnings))

    def _report(self, stage: str, fraction: float) -> None:
        self.stage, self.fraction = stage, fraction
        if self.cancelled:
            raise Cancelled(f"stopped at {stage}")


def new_job(layer: "Image | None", package: str, device: str, convention: str | None = None) -> Job:
    """Check what the window's fields say and make a job of it; without a package the bundled model segments.

    Raises:
        UsageError: If there is no image, or the package is no folder.
    """
    if layer is None:
        raise UsageError("there is no image layer; open a volume first")
    if not package:
        return Job(layer, "bundled", device=device, convention=convention)
    folder = Path(package).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; choose the folder of a model package")
    return Job(layer, folder, device=device)
