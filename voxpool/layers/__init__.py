"""Bricks of the networks, for any number of spatial dimensions."""

from voxpool.layers.residual import PreActivationResidual
from voxpool.layers.scales import ScaleDecoder, SumOfScales

__all__ = ["PreActivationResidual", "ScaleDecoder", "SumOfScales"]
