"""Labels of images by a network for images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.crf import CRFSettings, dense_crf
from voxpool.data2d.transforms import superpixels, to_tensor
from voxpool.engine import Amp, memory_format, use_bf16
from voxpool.model_package import PlanarInfo
from voxpool.nets2d import SuperpixelBranch


@dataclass(frozen=True)
class ImageLabels:
    """Labels of an image.

    Attributes:
        labels: Classes, (H, W) of the image, uint8.
        segments: Superpixels at the network's size, or None.
    """

    labels: np.ndarray
    segments: np.ndarray | None


def label_image(
    net: nn.Module,
    info: PlanarInfo,
    image: np.ndarray,
    *,
    size: tuple[int, int] | None = None,
    amp: Amp = "auto",
    crf: CRFSettings | None = None,
) -> ImageLabels:
    """Label an image: the scores of the network at its size, enlarged to the image's, the largest wins.

    Args:
        net: The network in evaluation mode, on its device.
        info: Its description.
        image: Colours at the network's size, (h, w, 3), uint8; see `voxpool.io.read_image`.
        size: (H, W) of the labels; None for those of `image`.
        crf: Settings of a dense CRF that smooths the probabilities at the network's size, or None.
        amp: "bf16" for mixed precision, "off" for float32, "auto" for bf16 where the device computes in it.

    Determinism: the same image gives the same labels on one device.
    """
    device = next(net.parameters()).device
    colours = to_tensor(image)
    batch = colours[None].to(device, memory_format=memory_format(net))
    segments: Tensor | None = None
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(amp, device)):
        if isinstance(net, SuperpixelBranch):
            assert info.pixels_each is not None  # a description with superpixels says how large they are
            segments = superpixels(colours, info.pixels_each, info.compactness)
            scores = net(batch, segments[None].to(device), int(segments.max()) + 1)
        else:
            scores = net(batch)
        if crf is not None:
            scores = dense_crf(scores.float(), torch.from_numpy(image).permute(2, 0, 1)[None].to(device), crf)
        if size is not None and tuple(scores.shape[2:]) != size:
            scores = functional.interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)
        labels = scores.argmax(1)[0].to(torch.uint8).cpu().numpy()
    return ImageLabels(labels, None if segments is None else segments.numpy())
