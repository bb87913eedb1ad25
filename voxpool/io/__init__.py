"""Files and volumes: NIfTI in and out, the geometry of a grid, atomic writes."""

from .atomic import atomic_path, write_json, write_text
from .geometry import Geometry
from .nifti import read_geometry, read_labels, read_volume, write_volume
from .volume import HeaderCodes, Volume

__all__ = [
    "Geometry",
    "HeaderCodes",
    "Volume",
    "atomic_path",
    "read_geometry",
    "read_labels",
    "read_volume",
    "write_json",
    "write_text",
    "write_volume",
]
