"""Networks for images, one paper per file; `PLANAR_NETS` lists them, `voxpool.nets.create_net` makes them too."""

from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.encoders import ResNet, load_encoder
from voxpool.nets2d.registry import PLANAR_NETS, PlanarEntry, create_planar
from voxpool.nets2d.superpixels import SuperpixelBranch

__all__ = [
    "PLANAR_NETS",
    "PlanarEntry",
    "PlanarNet",
    "ResNet",
    "SuperpixelBranch",
    "create_planar",
    "load_encoder",
]
