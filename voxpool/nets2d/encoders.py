"""The two encoders of the classical networks, with the state-dict shapes of the usual ImageNet weights."""

from collections.abc import Sequence

from torch import Tensor, nn

from voxpool.errors import UsageError

_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_BASIC = (18, 34)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with a shortcut (He et al. 2016)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps, smaller by the stride."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolutions with a shortcut (He et al. 2016); the stride is in the middle."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps, smaller by the stride."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet without its classifier: the maps of its four stages (He et al. 2016).

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: Channels of the image.
        output_stride: 32, or 16 or 8: the last one or two stages dilate instead of striding.
        deep_stem: Three 3 × 3 convolutions in place of the 7 × 7 one.
        multi_grid: Factors of the last stage's dilations, for DeepLab v3.

    Raises:
        UsageError: If the depth or the output stride is none of these.

    Attributes:
        channels: Of the four stages.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        *,
        output_stride: int = 32,
        deep_stem: bool = False,
        multi_grid: Sequence[int] = (1,),
    ) -> None:
        super().__init__()
        if depth not in _DEPTHS or output_stride not in (8, 16, 32):
            raise UsageError(
                f"a ResNet has the depth {', '.join(map(str, _DEPTHS))} and the output stride 8, 16 or 32,"
                f" got {depth} and {output_stride}"
            )
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth in _BASIC else Bottleneck
        if deep_stem:
            self.stem = nn.Sequential(
                *_conv(in_channels, 64, stride=2), *_conv(64, 64), *_conv(64, 128), nn.MaxPool2d(3, 2, 1)
            )
        else:
            self.stem = nn.Sequential(*_conv(in_channels, 64, kernel=7, stride=2), nn.MaxPool2d(3, 2, 1))
        inputs, stride, dilation = 128 if deep_stem else 64, 4, 1
        stages, channels = [], []
        for number, (blocks, width) in enumerate(zip(_DEPTHS[depth], (64, 128, 256, 512), strict=True)):
            step = 1 if number == 0 else 2
            if stride * step > output_stride:
                dilation, step = dilation * step, 1
            stride *= step
            layers = []
            for index in range(blocks):
                factor = multi_grid[index % len(multi_grid)] if number == len(_DEPTHS[depth]) - 1 else 1
                layers.append(block(inputs, width, stride=step if index == 0 else 1, dilation=dilation * factor))
                inputs = width * block.expansion
            stages.append(nn.Sequential(*layers))
            channels.append(inputs)
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The maps of the four stages, fine to coarse."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


VGG16 = (2, 2, 3, 3, 3)
"""Convolutions before each of VGG-16's five poolings."""

VGG_WIDTHS = (64, 128, 256, 512, 512)


def vgg_stage(inputs: int, outputs: int, count: int, *, dilation: int = 1, norm: bool = False) -> nn.Sequential:
    """Some 3 × 3 convolutions with biases and ReLU (Simonyan and Zisserman 2015), with batch norm where asked."""
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
        inputs = outputs
    return nn.Sequential(*layers)


def vgg_stages(in_channels: int, *, last_dilation: int = 1, norm: bool = False) -> nn.ModuleList:
    """The five stages of VGG-16, without the poolings between them."""
    inputs, stages = in_channels, []
    for number, (count, width) in enumerate(zip(VGG16, VGG_WIDTHS, strict=True)):
        dilation = last_dilation if number == len(VGG16) - 1 else 1
        stages.append(vgg_stage(inputs, width, count, dilation=dilation, norm=norm))
        inputs = width
    return nn.ModuleList(stages)


def load_encoder(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Take the weights of an encoder from a file of the usual kind, whatever its keys are called.

    The tensors are matched in their order, which all implementations of ResNet and VGG share, by their shapes; the
    classifier's, and counts of batches, are left out.

    Args:
        encoder: A `ResNet`, or the stages of VGG-16.
        state: A state dict, such as torchvision's.

    Raises:
        UsageError: If a tensor is missing or of another shape.
    """
    own = {name: value for name, value in encoder.state_dict().items() if "num_batches" not in name}
    given = [(name, value) for name, value in state.items() if "num_batches" not in name]
    for (name, value), (source, tensor) in zip(own.items(), given, strict=False):
        if value.shape != tensor.shape:
            raise UsageError(
                f"weights {source} have the shape {tuple(tensor.shape)}, wanted {tuple(value.shape)} for {name};"
                " take the file of the same encoder"
            )
    if len(given) < len(own):
        raise UsageError(f"the file holds {len(given)} tensors, the encoder needs {len(own)}; take another file")
    matched = {name: tensor for name, (_, tensor) in zip(own, given, strict=False)}
    encoder.load_state_dict(matched, strict=False)


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
