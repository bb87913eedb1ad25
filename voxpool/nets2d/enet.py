"""ENet (Paszke, Chaurasia, Kim, Culurciello 2016): a small encoder with dilated and asymmetric bottlenecks."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet

_EPS = 1e-3
_INITIAL = 13  # channels that the first convolution adds to the pooled image
_NARROWING = 4
# stages 2 and 3: dilation, or the length of an asymmetric convolution
_BODY = (
    ("dilated", 1),
    ("dilated", 2),
    ("asymmetric", 5),
    ("dilated", 4),
    ("dilated", 1),
    ("dilated", 8),
    ("asymmetric", 5),
    ("dilated", 16),
)


class ENet(PlanarNet):
    """ENet.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 19) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = 16
        first = in_channels + _INITIAL
        self.initial = nn.Conv2d(in_channels, _INITIAL, 3, stride=2, padding=1)
        self.initial_norm = nn.Sequential(nn.BatchNorm2d(first, _EPS), nn.PReLU(first))
        self.down1 = _Down(first, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(_Regular(64, dropout=0.01) for _ in range(4)))
        self.down2 = _Down(64, 128, dropout=0.1)
        self.stage2, self.stage3 = (
            nn.Sequential(*(_Regular(128, dropout=0.1, kind=kind, size=size) for kind, size in _BODY)) for _ in range(2)
        )
        self.up4 = _Up(128, 64)
        self.stage4 = nn.Sequential(*(_Regular(64, dropout=0.0, act=nn.ReLU) for _ in range(2)))
        self.up5 = _Up(64, 16)
        self.stage5 = _Regular(16, dropout=0.0, act=nn.ReLU)
        self.head = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def features(self, x: Tensor) -> Tensor:
        """(N, 16, H / 2, W / 2)."""
        pooled = functional.max_pool2d(x, 2, ceil_mode=True)
        x = self.initial_norm(torch.cat([self.initial(x), pooled], dim=1))
        size1 = x.shape[2:]
        x, places1 = self.down1(x)
        x = self.stage1(x)
        size2 = x.shape[2:]
        x, places2 = self.down2(x)
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, places2, size2))
        return self.stage5(self.up5(x, places1, size1))


class _Regular(nn.Module):
    """Narrow, filter, widen, added to the input."""

    def __init__(
        self,
        channels: int,
        *,
        dropout: float,
        kind: str = "dilated",
        size: int = 1,
        act: type[nn.PReLU] | type[nn.ReLU] = nn.PReLU,
    ) -> None:
        super().__init__()
        inside = channels // _NARROWING
        self.path = nn.Sequential(
            nn.Conv2d(channels, inside, 1, bias=False),
            *_norm(inside, act),
            *_middle(inside, kind, size),
            *_norm(inside, act),
            nn.Conv2d(inside, channels, 1, bias=False),
            nn.BatchNorm2d(channels, _EPS),
            nn.Dropout2d(dropout),
        )
        self.act = _act(channels, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.path(x))


class _Down(nn.Module):
    """Half the size: maxima with their places, filled up with zero channels, and a filtered path."""

    def __init__(self, inputs: int, outputs: int, *, dropout: float) -> None:
        super().__init__()
        inside = outputs // _NARROWING
        self.added = outputs - inputs
        self.path = nn.Sequential(
            nn.Conv2d(inputs, inside, 2, stride=2, bias=False),
            *_norm(inside, nn.PReLU),
            nn.Conv2d(inside, inside, 3, padding=1),
            *_norm(inside, nn.PReLU),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, _EPS),
            nn.Dropout2d(dropout),
        )
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        padded = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        pooled, places = functional.max_pool2d(padded, 2, return_indices=True)
        filled = functional.pad(pooled, (0, 0, 0, 0, 0, self.added))
        return self.act(filled + self.path(padded)), places


class _Up(nn.Module):
    """Twice the size: what is narrowed goes back to where the maxima were, beside a deconvolved path."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inside = outputs // _NARROWING
        self.main = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, _EPS))
        self.path = nn.Sequential(
            nn.Conv2d(inputs, inside, 1, bias=False),
            *_norm(inside, nn.ReLU),
            nn.ConvTranspose2d(inside, inside, 3, stride=2, padding=1, output_padding=1),
            *_norm(inside, nn.ReLU),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, _EPS),
        )

    def forward(self, x: Tensor, places: Tensor, size: torch.Size) -> Tensor:
        whole = [2 * side for side in x.shape[2:]]
        # the places are those of the maxima's channels: the first of them
        main = functional.max_unpool2d(self.main(x), places[:, : self.main[0].out_channels], [2, 2], output_size=whole)
        return functional.relu(main + self.path(x))[:, :, : size[0], : size[1]]


def _middle(channels: int, kind: str, size: int) -> list[nn.Module]:
    if kind == "asymmetric":
        return [
            nn.Conv2d(channels, channels, (size, 1), padding=(size // 2, 0), bias=False),
            nn.Conv2d(channels, channels, (1, size), padding=(0, size // 2)),
        ]
    return [nn.Conv2d(channels, channels, 3, padding=size, dilation=size)]


def _act(channels: int, act: type[nn.PReLU] | type[nn.ReLU]) -> nn.Module:
    return nn.PReLU(channels) if act is nn.PReLU else nn.ReLU()


def _norm(channels: int, act: type[nn.PReLU] | type[nn.ReLU]) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, _EPS), _act(channels, act)]
