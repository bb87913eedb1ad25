"""GCN, "large kernel matters" (Peng, Zhang, Yu, Luo, Sun 2017): scores by large separable kernels, refined upwards."""

from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet, resize
from voxpool.nets2d.encoders import ResNet


class GCN(PlanarNet):
    """Global convolutional network with boundary refinement.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        depth: Of the ResNet: 152 in the paper.
        kernel: Length of the large kernels: 15 is the paper's best, 7 the common one.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 21, *, depth: int = 152, kernel: int = 7) -> None:
        super().__init__()
        self.num_classes = self.feature_channels = num_classes
        self.encoder = ResNet(depth, in_channels)
        self.large = nn.ModuleList(LargeKernel(inputs, num_classes, kernel) for inputs in self.encoder.channels[::-1])
        # after each large kernel, after each sum, and at the two finest sizes
        levels = len(self.encoder.channels)
        self.after_kernel = nn.ModuleList(_Refinement(num_classes) for _ in range(levels))
        self.after_sum = nn.ModuleList(_Refinement(num_classes) for _ in range(levels - 1))
        self.finest = nn.ModuleList(_Refinement(num_classes) for _ in range(2))
        self.head = nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """The refined scores, (N, num_classes, H, W): the network has no maps but scores there."""
        size = x.shape[2:]
        scores: Tensor | None = None
        for number, stage in enumerate(self.encoder(x)[::-1]):
            own = self.after_kernel[number](self.large[number](stage))
            scores = own if scores is None else self.after_sum[number - 1](own + resize(scores, own.shape[2:]))
        assert scores is not None  # an encoder has stages
        half = [-(-side // 2) for side in size]
        for refine, target in zip(self.finest, (half, size), strict=True):
            scores = refine(resize(scores, target))
        return scores


class LargeKernel(nn.Module):
    """k × 1 then 1 × k, beside 1 × k then k × 1: a k × k kernel for few parameters.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: k, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            _line(inputs, outputs, kernel, tall=True), _line(outputs, outputs, kernel, tall=False)
        )
        self.right = nn.Sequential(
            _line(inputs, outputs, kernel, tall=False), _line(outputs, outputs, kernel, tall=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        return self.left(x) + self.right(x)


class _Refinement(nn.Module):
    """A residual unit on scores: it sharpens the borders between classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(x)))


def _line(inputs: int, outputs: int, length: int, *, tall: bool) -> nn.Conv2d:
    size = (length, 1) if tall else (1, length)
    return nn.Conv2d(inputs, outputs, size, padding=(size[0] // 2, size[1] // 2))
