"""The labels of whole-head maps: what they are, what a network learns of them, and how classes merge.

FreeSurfer's ids for the brain; ids from 500 on for what surrounds it, as in the label maps of SynthSeg (Billot et
al. 2023). Left and right are one.
"""

from collections.abc import Mapping

import numpy as np

CLASSES = (
    "background",
    "ventricular CSF",
    "extra-ventricular CSF",
    "cortical GM",
    "deep GM",
    "WM",
    "cerebellar GM",
    "cerebellar WM",
    "brain stem",
)
"""What the network learns to tell apart; the index is the class id."""

BACKGROUND, VENTRICLES, OUTER_CSF, CORTEX, DEEP, WHITE, CEREBELLUM, CEREBELLAR_WHITE, STEM = range(len(CLASSES))

# name: ids in the maps, class, typical brightness in T1 and in T2, from 0 for air to 1
_STRUCTURES: tuple[tuple[str, tuple[int, ...], int, float, float], ...] = (
    ("air", (0,), BACKGROUND, 0.02, 0.02),
    ("white matter", (2, 41), WHITE, 0.85, 0.40),
    ("cortex", (3, 42), CORTEX, 0.55, 0.62),
    ("lateral ventricle", (4, 5, 43, 44, 72), VENTRICLES, 0.18, 0.95),
    ("third and fourth ventricle", (14, 15), VENTRICLES, 0.20, 0.95),
    ("cerebellar white matter", (7, 46), CEREBELLAR_WHITE, 0.83, 0.40),
    ("cerebellar cortex", (8, 47), CEREBELLUM, 0.55, 0.62),
    ("thalamus", (10, 49), DEEP, 0.68, 0.52),
    ("caudate", (11, 50), DEEP, 0.58, 0.58),
    ("putamen", (12, 51), DEEP, 0.63, 0.52),
    ("pallidum", (13, 52), DEEP, 0.76, 0.38),
    ("hippocampus", (17, 53), DEEP, 0.54, 0.64),
    ("amygdala", (18, 54), DEEP, 0.54, 0.62),
    ("accumbens", (26, 58), DEEP, 0.58, 0.58),
    ("ventral diencephalon", (28, 60), DEEP, 0.74, 0.44),
    ("brain stem", (16,), STEM, 0.80, 0.44),
    ("outer CSF", (24,), OUTER_CSF, 0.18, 0.92),
    ("vessel", (30, 62), WHITE, 0.45, 0.30),
    ("lesion", (25, 57), WHITE, 0.60, 0.75),
    ("choroid plexus", (136, 137, 163, 164), VENTRICLES, 0.38, 0.75),
    ("optic chiasm", (85,), BACKGROUND, 0.72, 0.45),
    ("bone", (165, 515), BACKGROUND, 0.10, 0.08),
    ("bone marrow", (516,), BACKGROUND, 0.60, 0.50),
    ("soft tissue", (507,), BACKGROUND, 0.50, 0.35),
    ("skin and fat", (511,), BACKGROUND, 0.85, 0.60),
)
_AROUND = tuple(number for number in range(500, 560) if number not in (507, 511, 515, 516))

STRUCTURES = tuple(name for name, *_ in _STRUCTURES) + tuple(f"tissue {number}" for number in _AROUND)
"""What a synthetic image gives one brightness each; the index is the id in a prepared map."""

T1_LIKE = np.array([t1 for *_, t1, _ in _STRUCTURES], np.float32)
T2_LIKE = np.array([t2 for *_, t2 in _STRUCTURES], np.float32)
"""Typical brightness; other tissues around the brain, for which none is given, follow in `STRUCTURES`."""

CLASS_OF = np.array([c for _, _, c, _, _ in _STRUCTURES] + [BACKGROUND] * len(_AROUND), np.uint8)
"""Class of every structure."""

AIR = 0
LESION = STRUCTURES.index("lesion")


def structure_ids(labels: np.ndarray) -> np.ndarray:
    """Index into `STRUCTURES` of every voxel of a label map, uint8; labels that nobody knows become air."""
    table = np.zeros(max(int(labels.max()) + 1, 600), np.uint8)
    for index, (_, ids, *_rest) in enumerate(_STRUCTURES):
        table[list(ids)] = index
    for index, label in enumerate(_AROUND, start=len(_STRUCTURES)):
        table[label] = index
    return table[np.clip(labels, 0, None)]


TISSUES = ("background", "CSF", "GM", "WM")
"""What classes merge into; the index is the label."""

CONVENTIONS: Mapping[str, tuple[int, ...]] = {
    "ventricles-only": (0, 1, 2, 2, 2, 3, 2, 3, 3),
    "all-csf": (0, 1, 1, 2, 2, 3, 2, 3, 3),
}
"""What each class becomes of `TISSUES`, by the name of a convention."""
