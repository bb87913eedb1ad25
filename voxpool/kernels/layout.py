"""The two memory layouts of flat feature maps (N, C, P): contiguous and channels-last."""

from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a voxel lie together: strides (C * P, 1, C), and not also those of a contiguous map."""
    return not x.is_contiguous() and x.transpose(1, 2).is_contiguous()


def empty(like: Tensor, shape: tuple[int, int, int], *, channels_last: bool) -> Tensor:
    """Return an uninitialised map (N, C, P) in a layout, with the dtype and device of another tensor."""
    if not channels_last:
        return like.new_empty(shape)
    samples, channels, size = shape
    return like.new_empty((samples, size, channels)).transpose(1, 2)


def zeros(like: Tensor, shape: tuple[int, int, int], *, channels_last: bool) -> Tensor:
    """Return a map (N, C, P) of zeros in a layout, with the dtype and device of another tensor."""
    return empty(like, shape, channels_last=channels_last).zero_()


def arrange(x: Tensor, *, channels_last: bool) -> Tensor:
    """Return the map (N, C, P) in a layout, itself where it has it already."""
    return x.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else x.contiguous()


def to_kernel_layout(x: Tensor) -> Tensor:
    """Return the map (N, C, P) in a layout that kernels read: as it is, or else contiguous."""
    return x if is_channels_last(x) else x.contiguous()
