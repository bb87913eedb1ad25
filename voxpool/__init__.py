"""voxpool: segmentation of medical volumes with supervoxel pooling.

Names are loaded on first use, so `import voxpool` needs neither torch nor MONAI.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Geometry": "voxpool.io",
    "Segmenter": "voxpool.inference",
    "Supervoxels": "voxpool.ops",
    "Volume": "voxpool.io",
    "blocks": "voxpool.supervoxels",
    "create_net": "voxpool.nets",
    "oracle_dice": "voxpool.supervoxels",
    "oracle_labels": "voxpool.supervoxels",
    "read_labels": "voxpool.io",
    "read_volume": "voxpool.io",
    "segment_pool": "voxpool.ops",
    "segment_unpool": "voxpool.ops",
    "slic": "voxpool.supervoxels",
    "write_volume": "voxpool.io",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'voxpool' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
