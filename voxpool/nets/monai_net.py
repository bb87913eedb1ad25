"""A network of MONAI as its bundle runs it: named by its class and its arguments, asked window by window."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from monai.inferers import sliding_window_inference
from monai.networks import nets
from torch import Tensor, nn

from voxpool.errors import UsageError

MONAI_NETS = ("AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "HighResNet", "SegResNet", "UNet", "VNet")
"""Classes of `monai.networks.nets` that score voxels and are made of plain arguments."""


class MonaiNet(nn.Module):
    """A network of MONAI with its windows: scores of a volume are those of overlapping windows, blended.

    A network with instance or group normalisation says something else of a whole volume than of the windows that it
    was trained with; so the windows belong to it. It is for prediction, and carries no supervoxel head.

    Args:
        in_channels: Number of image channels.
        num_classes: Number of classes, background included.
        network: One of `MONAI_NETS`.
        arguments: What its class is given besides the numbers of dimensions, channels and classes.
        roi_size: Size of the windows in voxels.
        overlap: Share of a window that its neighbour covers too, from 0 to below 1.
        mode: Weights of the windows' voxels: "constant" or "gaussian".

    Raises:
        UsageError: If the network is unknown, its class refuses the arguments, or the windows are none.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        network: str,
        arguments: dict[str, Any],
        roi_size: Sequence[int],
        overlap: float = 0.25,
        mode: Literal["constant", "gaussian"] = "constant",
    ) -> None:
        super().__init__()
        if network not in MONAI_NETS:
            raise UsageError(f"the network must be one of {', '.join(MONAI_NETS)}, got {network!r}")
        if len(roi_size) != 3 or min(roi_size) < 1 or not 0 <= overlap < 1 or mode not in ("constant", "gaussian"):
            raise UsageError(
                f"windows need three sides, an overlap from 0 to below 1 and the mode constant or gaussian, got"
                f" {list(roi_size)}, {overlap} and {mode!r}"
            )
        try:
            self.net = getattr(nets, network)(
                spatial_dims=3, in_channels=in_channels, out_channels=num_classes, **arguments
            )
        # what MONAI's classes raise of arguments that do not go together
        except (TypeError, ValueError, KeyError, AttributeError, AssertionError, NotImplementedError) as error:
            raise UsageError(f"{network} refuses its arguments ({error}); take those it was trained with") from error
        self.roi_size, self.overlap, self.mode = tuple(roi_size), overlap, mode
        self.step = tuple(max(1, int(side * (1 - overlap))) for side in self.roi_size)
        """Voxels from one window to the next."""
        self.num_classes = self.feature_channels = num_classes  # as many numbers per voxel are kept
        self.stride = 1  # windows are padded where the volume is smaller
        self.receptive_radius = max(self.roi_size)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, num_classes, *S) of an image (N, in_channels, *S) of any size."""
        scores = sliding_window_inference(
            x, self.roi_size, 1, self._window_scores, overlap=self.overlap, mode=self.mode
        )
        return cast(Tensor, scores)  # one tensor, as `_window_scores` gives one

    def count_windows(self, shape: Sequence[int]) -> int:
        """How many windows an image of a shape (*S) is asked in."""
        sides = zip(shape, self.roi_size, self.step, strict=True)
        return math.prod(math.ceil(max(0, size - side) / step) + 1 for size, side, step in sides)

    @contextmanager
    def watched(self, before_window: Callable[[], None]) -> Iterator[None]:
        """Inside, a function is called before each window; what it raises stops the network."""
        handle = self.net.register_forward_pre_hook(lambda *_: before_window())
        try:
            yield
        finally:
            handle.remove()

    def _window_scores(self, window: Tensor) -> Tensor:
        scores = self.net(window)
        return scores[0] if isinstance(scores, (list, tuple)) else scores  # the others are those of coarser levels
