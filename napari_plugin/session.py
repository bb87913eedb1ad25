"""One segmentation run of the viewer, without Qt: the window starts it in a thread and looks at its state."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_voxpool.display import labels_as_shown, volume_of_layer
from voxpool.errors import UsageError, VoxpoolError

if TYPE_CHECKING:
    from napari.layers import Image

    from voxpool.inference import Segmentation

DEVICES = ("auto", "cpu", "cuda")

# Okabe and Ito's palette, which colour-blind readers tell apart.
_TISSUE_COLOURS = {"CSF": "#56b4e9", "GM": "#e69f00", "WM": "#f0e442"}
# classes of whole heads: a tissue's family shares its hue
_TISSUE_COLOURS |= {
    "ventricular CSF": "#0072b2",
    "extra-ventricular CSF": "#56b4e9",
    "cortical GM": "#e69f00",
    "deep GM": "#d55e00",
    "cerebellar GM": "#cc79a7",
    "cerebellar WM": "#fff7b0",
    "brain stem": "#009e73",
}
_OTHER_COLOURS = ("#009e73", "#cc79a7", "#d55e00", "#0072b2", "#999999")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        segmentation: The result, or None if there is none.
        message: One sentence for the user.
    """

    segmentation: "Segmentation | None"
    message: str


CANCELLED = Outcome(None, "Cancelled; nothing was changed.")


class Job:
    """A segmentation of one layer, to be run once, in a thread.

    Args:
        layer: The image.
        package: Folder of the model package, or "bundled".
        device: "auto", or a torch device.

    Attributes:
        stage: What is being done.
        fraction: How much of all is done, 0 to 1.
    """

    def __init__(self, layer: "Image", package: Path | str, *, device: str = "auto") -> None:
        self.layer = layer
        self.package = package
        self.device = device
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
        # torch and MONAI take seconds to import: in this thread, the window stays alive.
        from voxpool.engine import Cancelled

        try:
            segmentation = self._segment()
        except Cancelled:
            return CANCELLED
        except VoxpoolError as error:
            return Outcome(None, f"{error}.")
        done = f"Done in {segmentation.seconds:.1f} s; {segmentation.quality:.0%} of the labels should be right."
        warnings = "".join(f" Warning: {warning}." for warning in segmentation.warnings)
        return Outcome(segmentation, done + warnings)

    def _segment(self) -> "Segmentation":
        from voxpool.engine import Cancelled
        from voxpool.inference import Segmenter

        def report(stage: str, fraction: float) -> None:
            self.stage, self.fraction = stage, fraction
            if self.cancelled:
                raise Cancelled(f"stopped at {stage}")

        report("loading", 0.0)
        segmenter = Segmenter.load(self.package, device=self.device)
        report("reading the layer", 0.0)
        segmentation = segmenter.segment(volume_of_layer(self.layer), progress=report, cancelled=lambda: self.cancelled)
        report("done", 1.0)
        return segmentation


def new_job(layer: "Image | None", package: str, device: str) -> Job:
    """Check what the window's fields say and make a job of it; without a package the bundled model segments.

    Raises:
        UsageError: If there is no image, or the package is no folder.
    """
    if layer is None:
        raise UsageError("there is no image layer; open a volume first")
    if not package:
        return Job(layer, "bundled", device=device)
    folder = Path(package).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; choose the folder of a model package")
    return Job(layer, folder, device=device)


def labels_layer(job: Job, segmentation: "Segmentation") -> tuple[np.ndarray, dict[str, Any]]:
    """Return the array and the options of the Labels layer that lies on the job's image."""
    layer = job.layer
    colours: dict[int | None, str] = {None: "transparent"}
    colours.update(label_colours(segmentation.label_names).items())
    options = {
        "name": f"{layer.name} tissues",
        "opacity": 0.5,
        "colormap": colours,
        "features": {
            "index": list(segmentation.label_names),
            "name": list(segmentation.label_names.values()),
        },
        "metadata": dict(layer.metadata),
        **{key: getattr(layer, key) for key in ("scale", "translate", "rotate", "shear", "units", "axis_labels")},
        "affine": layer.affine.affine_matrix,
    }
    return labels_as_shown(segmentation.labels, layer), options


def label_colours(label_names: dict[int, str]) -> dict[int, str]:
    """Return a colour per class id: background transparent, a tissue the same in every result."""
    colours = {}
    others = 0
    for label, name in label_names.items():
        if label == 0:
            colours[label] = "transparent"
        elif name in _TISSUE_COLOURS:
            colours[label] = _TISSUE_COLOURS[name]
        else:
            colours[label] = _OTHER_COLOURS[others % len(_OTHER_COLOURS)]
            others += 1
    return colours
