"""The supervoxels of a batch, checked and prepared once for many operations."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from voxpool.kernels import registry
from voxpool.ops.checks import check_ids, check_num_segments, check_segments


@dataclass(frozen=True)
class Supervoxels:
    """Segment ids with their number and what the backend of their device prepares for them.

    `segment_pool` and `segment_unpool` take it in place of `segments` and `num_segments`. It pays where the same
    segments serve several maps, layers or directions: the ids are checked once, and on a GPU the voxels are sorted
    once. Make it with `Supervoxels.of`.

    Attributes:
        segments: Supervoxel ids, (N, *S), int32, 0..num_segments-1 or -1 (ignored).
        num_segments: Number of segments K.
        plan: What the backend prepared, 1D int32; its form is the backend's own affair.
        sizes: Of its parts.
        backend: Name of that backend.
    """

    segments: Tensor
    num_segments: int
    plan: Tensor
    sizes: tuple[int, ...]
    backend: str

    @classmethod
    def of(cls, segments: Tensor, num_segments: int) -> "Supervoxels":
        """Check and prepare segments. On a GPU this waits for the device once; operations then do not.

        Args:
            segments: Supervoxel ids, (N, *S), 0..num_segments-1 or -1 (ignored); int32 or int64.
            num_segments: Number of segments K, a Python int; it may exceed the ids that occur.

        Returns:
            The supervoxels, on the device of `segments`.

        Raises:
            UsageError: If the shape, dtype, number or an id does not fit.

        Example:
            >>> supervoxels = Supervoxels.of(torch.tensor([[0, 0, 1, -1]]), 2)
            >>> segment_pool(torch.tensor([[[1.0, 5.0, 2.0, 4.0]]]), supervoxels)
            tensor([[[5., 2.]]])
        """
        check_segments(segments, segments.shape, segments.device)
        check_num_segments(num_segments)
        check_ids(segments, num_segments)
        narrow = segments.to(torch.int32).contiguous()
        flat = narrow.reshape(len(narrow), math.prod(narrow.shape[1:]))
        backend = registry.select(narrow.device, torch.float32)
        parts = backend.kernels().plan(flat, num_segments, tuple(narrow.shape[1:]))
        plan = torch.cat(parts) if parts else flat.new_empty(0)
        return cls(narrow, num_segments, plan, tuple(len(part) for part in parts), backend.name)

    def to(self, device: torch.device | str) -> "Supervoxels":
        """The same supervoxels on another device, prepared for its backend; itself where it is there already."""
        target = torch.device(device)
        same = target.type == self.segments.device.type and target.index in (None, self.segments.device.index)
        return self if same else Supervoxels.of(self.segments.to(target), self.num_segments)
