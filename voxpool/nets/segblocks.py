"""Full resolution only where an image or a volume needs it, for any network.

Verelst and Tuytelaars: SegBlocks: block-based dynamic resolution networks for real-time segmentation (2022).
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.layers.blocks import Blocks
from voxpool.ops.block_pad import BlockGrid, block_sample

POOLING = 4
"""Side of the squares (cubes) whose means an image is compared with; the authors' code takes 4, their text 2."""


class SegBlocks(nn.Module):
    """A network that computes simple blocks of an image at half resolution.

    With all blocks at full resolution it gives the network's scores, with none those of the averaged image, enlarged;
    both to rounding. It has no weights of its own: a trained network is wrapped as it is, or trained on.

    Args:
        net: Network with `forward(x)`, for images or volumes.
        block: Side of a block in pixels or voxels: a multiple of twice the network's coarsest scale.
        threshold: Complexity τ above which a block keeps its resolution; see `complexity`.

    Raises:
        UsageError: If the side is odd or below 4.
    """

    def __init__(self, net: nn.Module, *, block: int = 128, threshold: float = 0.3) -> None:
        super().__init__()
        if block < 4 or block % 2:
            raise UsageError(f"the side of a block must be even and at least 4, got {block}")
        self.net, self.block, self.threshold = net, block, threshold
        self.num_classes = cast(int, net.num_classes)

    def choose(self, x: Tensor) -> BlockGrid:
        """Which blocks of an image (N, C, *S) keep their resolution."""
        return BlockGrid(complexity(x, self.block) > self.threshold)

    def forward(self, x: Tensor, grid: BlockGrid | None = None) -> Tensor:
        """Class scores of an image.

        Args:
            x: Image, (N, C, *S), prepared as for the network; every side a multiple of the block's.
            grid: Which blocks keep their resolution; None to choose them by their complexity.

        Returns:
            (N, num_classes, *S).

        Raises:
            UsageError: If the sides are no multiples of the block's.

        Determinism: as the network's.
        """
        scores = self.blocks(x, self.choose(x) if grid is None else grid)
        found = scores.dense(linear=True) if isinstance(scores, Blocks) else scores
        if found.shape[2:] == x.shape[2:]:
            return found
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        return functional.interpolate(found, size=x.shape[2:], mode=mode, align_corners=False)

    def blocks(self, x: Tensor, grid: BlockGrid) -> Any:
        """What the network makes of an image in blocks: blocks, or a tensor where its last step needs the whole."""
        return self.net(Blocks(*block_sample(x, grid), grid))


def complexity(x: Tensor, block: int) -> Tensor:
    """How much of each block is lost at a coarser resolution (equation 1 of the paper).

    The mean over a block of |x - up(pool(x))|, summed over channels, with means over 4 × 4 (4 × 4 × 4) elements.

    Args:
        x: Image (N, C, *S), prepared as for the network.
        block: Side of a block.

    Returns:
        (N, *G), as the image.

    Raises:
        UsageError: If a side of the image is no multiple of the block's.
    """
    if any(size % block for size in x.shape[2:]):
        raise UsageError(f"sides must be multiples of the block's {block}, got {tuple(x.shape[2:])}; pad the image")
    pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
    size = min(POOLING, block)
    means = pool(x, size)
    for axis in range(2, x.ndim):
        means = means.repeat_interleave(size, axis)
    lost = (x - means).abs().sum(1, keepdim=True)  # (N, 1, *S)
    return cast(Tensor, pool(lost, block))[:, 0]
