"""Dilation8 (Yu and Koltun 2016): VGG-16 with dilations instead of its last poolings, then a context module.

After the released networks: the fourth stage is not dilated, the fifth by 2, the 7 × 7 layer by 4.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.encoders import VGG_WIDTHS, vgg_stages

WIDTH = 4096
# of the context's 3 x 3 layers; the widths are multiples of the number of classes
_DILATIONS = (1, 1, 2, 4, 8, 16, 1)
_WIDTHS = {"basic": (1,) * 7, "large": (2, 2, 4, 8, 16, 32, 32)}

Context = Literal["basic", "large", "none"]


class Dilation8(PlanarNet):
    """Dilation8: front end, and context module.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        context: "large" as for Pascal VOC, "basic" as for CamVid, "none" for the front end alone.

    Raises:
        UsageError: If the context is none of these.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 21, *, context: Context = "large") -> None:
        super().__init__()
        if context not in (*_WIDTHS, "none"):
            raise UsageError(f"context must be basic, large or none, got {context!r}")
        self.num_classes = self.feature_channels = num_classes
        self.stages = vgg_stages(in_channels, last_dilation=2)
        self.classifier = nn.Sequential(
            nn.Conv2d(VGG_WIDTHS[-1], WIDTH, 7, padding=12, dilation=4),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
            nn.Conv2d(WIDTH, num_classes, 1),
        )
        self.context = nn.Identity() if context == "none" else _context(num_classes, _WIDTHS[context])
        self.head = nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """The scores, (N, num_classes, H / 8, W / 8): the network has no maps but scores there."""
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number < 3:  # the last two poolings are left out
                x = functional.max_pool2d(x, 2, ceil_mode=True)
        return self.context(self.classifier(x))


def _context(classes: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Dilated layers that begin as the identity, summed over a class's channels where there are several."""
    inputs, layers = classes, []
    for multiple, dilation in zip(widths, _DILATIONS, strict=True):
        layers += [_identity(inputs, classes * multiple, classes, dilation=dilation), nn.ReLU(inplace=True)]
        inputs = classes * multiple
    return nn.Sequential(*layers, _identity(inputs, classes, classes, kernel=1))


def _identity(inputs: int, outputs: int, classes: int, *, dilation: int = 1, kernel: int = 3) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
    nn.init.zeros_(convolution.weight)
    # typed as optional, but asked for above
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    per_input, per_output = inputs // classes, outputs // classes
    with_centre = convolution.weight.data[:, :, kernel // 2, kernel // 2]
    for one in range(classes):
        rows, columns = slice(one * per_output, (one + 1) * per_output), slice(one * per_input, (one + 1) * per_input)
        # a class's channels add up to its score, before and after
        with_centre[rows, columns] = 1 / per_output
    return convolution
