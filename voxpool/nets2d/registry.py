"""All networks for images: how each is made, what its paper publishes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from voxpool.errors import UsageError
from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.deeplabv1 import DeepLabV1
from voxpool.nets2d.deeplabv2 import DeepLabV2
from voxpool.nets2d.deeplabv3 import DeepLabV3
from voxpool.nets2d.dilation8 import Dilation8
from voxpool.nets2d.enet import ENet
from voxpool.nets2d.fast_scnn import FastSCNN
from voxpool.nets2d.fcn import FCN
from voxpool.nets2d.gcn import GCN
from voxpool.nets2d.pspnet import PSPNet
from voxpool.nets2d.r2unet import R2UNet
from voxpool.nets2d.refinenet import RefineNet
from voxpool.nets2d.segnet import SegNet
from voxpool.nets2d.spssn import SPSSN
from voxpool.nets2d.superpixels import SuperpixelBranch
from voxpool.nets2d.swiftnet import SwiftNet

SUPERPIXELS = "superpixels"
"""Name of the head that adds a superpixel branch."""


@dataclass(frozen=True)
class PlanarEntry:
    """A network for images.

    Attributes:
        build: Makes it, called with the numbers of channels and classes and its options.
        paper: Authors and year.
        num_classes: Of the configuration whose size is published.
        parameters: Published number of parameters in millions, and None where none is.
        folded: Whether the published number leaves out batch norms, which are folded away for inference.
        gmacs: Published 10^9 multiply-accumulates, and the image that they are for.
        results: Published results, in words.
        remark: What the papers contradict each other in.
    """

    build: Callable[..., PlanarNet]
    paper: str
    num_classes: int
    parameters: float | None = None
    folded: bool = False
    gmacs: tuple[float, tuple[int, int]] | None = None
    results: str = ""
    remark: str = ""


PLANAR_NETS: dict[str, PlanarEntry] = {
    "enet": PlanarEntry(
        ENet, "Paszke et al. 2016", 19, 0.36, folded=True, results="Cityscapes test 58.3 class, 80.4 category IoU"
    ),
    "fast_scnn": PlanarEntry(
        FastSCNN, "Poudel et al. 2019", 19, 1.11, folded=True, results="Cityscapes test 68.0 class, 84.7 category IoU"
    ),
    "spssn": PlanarEntry(
        SPSSN,
        "SPSSN",
        19,
        1.42,
        folded=True,
        results="Cityscapes test 69.4 class, 86.0 category IoU; CamVid test 64.3",
        remark="the text names two pooling stages per module, the count fits four",
    ),
    "swiftnet_rn18": PlanarEntry(
        partial(SwiftNet, depth=18),
        "Oršić et al. 2019",
        19,
        11.8,
        gmacs=(103.6, (1024, 2048)),
        results="Cityscapes val 76.3 (SegBlocks paper)",
    ),
    "swiftnet_rn50": PlanarEntry(
        partial(SwiftNet, depth=50),
        "Oršić et al. 2019",
        19,
        gmacs=(204.6, (1024, 2048)),
        results="Cityscapes val 77.5 (SegBlocks paper)",
    ),
    "r2unet": PlanarEntry(
        R2UNet,
        "Alom et al. 2018",
        19,
        39.09,
        results="Cityscapes val 33.1",
        remark="the comparison's 30.00 million are not reproduced by its own code",
    ),
    "pspnet": PlanarEntry(
        PSPNet,
        "Zhao et al. 2017",
        19,
        51.44,
        results="Cityscapes val 66.1 (comparison); VOC test 85.4",
        remark="the comparison's abstract calls its training figure, 75.15, one of validation",
    ),
    "fcn32s": PlanarEntry(partial(FCN, stride=32), "Long et al. 2015", 21, results="VOC seg11valid 63.6"),
    "fcn16s": PlanarEntry(partial(FCN, stride=16), "Long et al. 2015", 21, results="VOC seg11valid 65.0"),
    "fcn8s": PlanarEntry(
        partial(FCN, stride=8), "Long et al. 2015", 21, 134.5, results="VOC test 67.2, seg11valid 65.5; CamVid 57.0"
    ),
    "segnet": PlanarEntry(
        SegNet, "Badrinarayanan et al. 2017", 11, 29.5, results="CamVid 55.6; Cityscapes test 57.0; VOC test 59.9"
    ),
    "dilation8": PlanarEntry(
        Dilation8,
        "Yu and Koltun 2016",
        21,
        140.8,
        results="VOC test 73.5 (71.3 without context); CamVid 65.3",
        remark="140.8 million fit the large context of VOC, though they are quoted for CamVid's basic one",
    ),
    "deeplabv1": PlanarEntry(
        DeepLabV1,
        "Chen et al. 2015",
        21,
        20.5,
        results="CamVid 61.6",
        remark="the SPSSN paper's 37.3 million are not reproduced",
    ),
    "deeplabv2": PlanarEntry(DeepLabV2, "Chen et al. 2018", 21, results="VOC test 79.7; VOC val 76.4, with CRF 77.7"),
    "deeplabv3": PlanarEntry(DeepLabV3, "Chen et al. 2017", 21, 61.0, results="VOC test 85.7"),
    "refinenet": PlanarEntry(
        RefineNet, "Lin et al. 2017", 21, 118.0, gmacs=(263, (512, 512)), results="VOC test 84.2, val 80.5"
    ),
    "refinenet_lw": PlanarEntry(
        partial(RefineNet, light=True),
        "Nekrasov et al. 2018",
        21,
        46.0,
        gmacs=(52, (512, 512)),
        results="VOC val 80.3 (ResNet-101)",
        remark="its figures are those of 512 × 512 pixels, though 625 × 468 is stated",
    ),
    "gcn": PlanarEntry(GCN, "Peng et al. 2017", 21, results="VOC test 82.2; Cityscapes 76.9"),
}


def create_planar(
    name: str, in_channels: int = 3, num_classes: int | None = None, *, head: str = "base", **options: Any
) -> nn.Module:
    """Make a network for images, with a superpixel branch where it is asked for.

    Args:
        name: A key of `PLANAR_NETS`.
        in_channels: Number of image channels.
        num_classes: Number of classes; None for those of the published configuration.
        head: "base", or "superpixels" for a `SuperpixelBranch`.
        **options: Options of the network.

    Raises:
        UsageError: If the name or the head is unknown.
    """
    if name not in PLANAR_NETS:
        raise UsageError(f"unknown network {name!r}; take one of {', '.join(PLANAR_NETS)}")
    if head not in ("base", SUPERPIXELS):
        raise UsageError(f"head of a network for images must be base or {SUPERPIXELS}, got {head!r}")
    entry = PLANAR_NETS[name]
    net = entry.build(in_channels, entry.num_classes if num_classes is None else num_classes, **options)
    return net if head == "base" else SuperpixelBranch(net)
