"""Files and volumes: the formats in, NIfTI and DICOM SEG out, the geometry of a grid, atomic writes."""

from .atomic import atomic_path, write_json, write_text
from .checksum import file_sha256
from .dicom import Series, is_dicom_file, list_series, read_dicom, read_series
from .dicom_seg import write_segmentation
from .geometry import Geometry
from .nifti import write_volume
from .read import EXTENSIONS, count_volumes, files_of, read_geometry, read_labels, read_volume, stem
from .volume import HeaderCodes, Volume

__all__ = [
    "EXTENSIONS",
    "Geometry",
    "HeaderCodes",
    "Series",
    "Volume",
    "atomic_path",
    "count_volumes",
    "file_sha256",
    "files_of",
    "is_dicom_file",
    "list_series",
    "read_dicom",
    "read_geometry",
    "read_labels",
    "read_series",
    "read_volume",
    "stem",
    "write_json",
    "write_segmentation",
    "write_text",
    "write_volume",
]
