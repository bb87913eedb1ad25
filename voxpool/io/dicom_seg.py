"""A label map as DICOM Segmentation beside the series that it was made from."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxpool import __version__
from voxpool.errors import InputError, ResourceError, UsageError

from .atomic import atomic_path
from .volume import Volume

# SNOMED CT codes of what the labels name, as pydicom's dictionary of DICOM's own value sets calls them
_CODES = {
    "CSF": "CerebrospinalFluid",
    "ventricular CSF": "BrainVentricle",
    "extra-ventricular CSF": "CerebrospinalFluid",
    "GM": "GrayMatter",
    "cortical GM": "CerebralCortex",
    "deep GM": "GrayMatter",
    "WM": "WhiteMatter",
    "cerebellar GM": "CerebellarCortex",
    "cerebellar WM": "CerebellarWhiteMatter",
    "brain stem": "BrainStem",
}
_SERIES_NUMBER = 900
_MAKER = "voxpool"


def write_segmentation(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    like: Volume,
    *,
    label_names: Mapping[int, str],
    algorithm: str,
) -> None:
    """Write a label map as DICOM SEG, one binary segment per class that occurs, and read it back.

    The patient's data are those of the source series, as the standard wants it.

    Args:
        path: Where to write, `.dcm`.
        labels: Class ids, 0 for background, of the shape of `like`.
        like: The volume of a DICOM series.
        label_names: Name of each class.
        algorithm: Name of the model.

    Raises:
        UsageError: If the volume is no DICOM series, the shape differs, or there is no foreground.
        InputError: If the source files are gone, or lack what a segmentation must refer to.
        ResourceError: If highdicom is not installed, the disk is full, or the file does not read back as it should.
    """
    if not like.sources:
        raise UsageError("DICOM SEG needs the series that was segmented, but the scan is no DICOM; export NIfTI")
    if labels.shape != like.geometry.shape:
        raise UsageError(f"labels have the shape {labels.shape}, the series has {like.geometry.shape}")
    present = [label for label in label_names if label and (labels == label).any()]
    if not present:
        raise UsageError("the label map is all background; DICOM SEG cannot hold it")
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise ResourceError('DICOM SEG needs highdicom; run pip install "voxpool[dicom]"') from error
    try:
        slices = [pydicom.dcmread(source) for source in like.sources]
    except OSError as error:
        raise InputError(f"a file of the source series is gone: {error.filename}; put it back") from error
    # (x, y, z) to (slice, row, column)
    frames = np.ascontiguousarray(labels.transpose(2, 1, 0))
    masks = np.stack([frames == label for label in present], axis=-1).astype(np.uint8)
    try:
        # highdicom warns of persons whose names have one part, and says the name
        with warnings.catch_warnings(action="ignore"):
            segmentation = highdicom.seg.Segmentation(
                source_images=slices,
                pixel_array=masks,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _describe(number + 1, label_names[label], algorithm) for number, label in enumerate(present)
                ],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=_MAKER,
                manufacturer_model_name=_MAKER,
                software_versions=__version__,
                device_serial_number="0",
                series_description=f"{_MAKER} tissues, research use only",
                omit_empty_frames=True,
            )
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"the source series lacks what a DICOM SEG refers to: {error}; export NIfTI") from error
    with atomic_path(path) as part:
        segmentation.save_as(part)
    _check(Path(path), masks, [str(one.SOPInstanceUID) for one in slices])


def _describe(number: int, name: str, algorithm: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    kind = getattr(codes.SCT, _CODES.get(name, "Brain"))
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )


def _check(path: Path, masks: np.ndarray, instances: list[str]) -> None:
    import highdicom

    back = highdicom.seg.segread(path).get_pixels_by_source_instance(
        instances, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    if not np.array_equal(back, masks):
        raise ResourceError(f"{path} does not read back as it was written; check the disk and export again")
