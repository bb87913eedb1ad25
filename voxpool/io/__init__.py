"""Files and volumes: NIfTI in and out, DICOM in and out, the geometry of a grid, atomic writes."""

from .atomic import atomic_path, write_json, write_text
from .dicom import Series, list_series, read_dicom, read_series
from .dicom_seg import write_segmentation
from .geometry import Geometry
from .nifti import read_geometry, read_labels, read_volume, write_volume
from .volume import HeaderCodes, Volume

__all__ = [
    "Geometry",
    "HeaderCodes",
    "Series",
    "Volume",
    "atomic_path",
    "list_series",
    "read_dicom",
    "read_geometry",
    "read_labels",
    "read_series",
    "read_volume",
    "write_json",
    "write_segmentation",
    "write_text",
    "write_volume",
]
