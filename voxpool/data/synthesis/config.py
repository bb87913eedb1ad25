"""What synthetic heads may look like."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SynthesisConfig:
    """How different synthetic heads are.

    Attributes:
        size: Field of view in mm, multiples of 4 and of `voxel`.
        voxel: Voxel size of the images in whole mm.
        grid: mm between the points at which structures are drawn, 1 or 2; a divisor of `voxel`.
        contrasts: How often an image looks like a T1, like a T2, and like nothing in particular.
        stripped: Share of the images without skull.
        rotation: Degrees about each axis, at most.
        scaling: Logarithm of the stretch, at most.
        shift: mm that the brain is off the middle along each axis, at most.
        bending: mm of the velocity of the random deformation, at most.
        ventricles: Standard deviation in mm of what the walls of the ventricles move.
        atrophy: Share of the heads with sulci a voxel wider.
        texture: Standard deviation of the brightness inside a structure, at most.
        thickest: Slice thickness in mm, at most.
        shading: Standard deviation of the logarithm of the shading, at most.
        gamma: Standard deviation of the logarithm of the gamma.
        noise: Standard deviation of the noise, at most; 1 is the brightest tissue.
    """

    size: tuple[int, int, int] = (192, 192, 192)
    voxel: int = 2
    grid: int = 1
    contrasts: tuple[float, float, float] = (0.5, 0.2, 0.3)
    stripped: float = 0.5
    rotation: float = 15.0
    scaling: float = 0.15
    shift: float = 10.0
    bending: float = 4.0
    ventricles: float = 2.0
    atrophy: float = 0.25
    texture: float = 0.06
    thickest: float = 6.0
    shading: float = 0.5
    gamma: float = 0.25
    noise: float = 0.08
