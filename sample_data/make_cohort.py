"""Make the sample cohort: six small brain-like T1 volumes with tissue labels, from whole-head label maps.

Run from anywhere, with the folder that holds the 20 label maps of BBillot/SynthSeg (`headmap_01.nii.gz` ...):

    python make_cohort.py --maps FOLDER [--out cohort]

Every voxel comes from a real anatomy and a simulated scanner: the maps say where the tissues are, the
intensities are drawn. The same maps, seed and library versions give the same files.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage

SEED = 20_250
SPACING = 2.5  # mm, isotropic
MARGIN = 3  # mm of empty space kept around the brain
CLOSING = 4  # mm: sulci narrower than twice this belong to the brain's neighbourhood

BACKGROUND, CSF, GM, WM = range(4)
CSF_IDS = (4, 5, 14, 15, 43, 44, 72, 136, 137, 163, 164)  # ventricles and the choroid plexus inside them
GM_IDS = (3, 8, 10, 11, 12, 13, 17, 18, 26, 42, 47, 49, 50, 51, 52, 53, 54, 58)
WM_IDS = (
    2,
    7,
    16,
    25,
    28,
    30,
    41,
    46,
    57,
    60,
    62,
    85,
)  # with brain stem, ventral DC, lesions, vessels, chiasm

# What a T1 scanner sees, between CSF (0) and WM (1). Deep grey matter lies between cortex and white matter
# and the brain stem is darker than the hemispheres, so no intensity threshold can separate the classes.
BRIGHTNESS = {
    **dict.fromkeys(CSF_IDS, 0.0),
    **dict.fromkeys((136, 137, 163, 164), 0.25),
    **dict.fromkeys(GM_IDS, 0.50),
    **dict.fromkeys((10, 49), 0.72),
    **dict.fromkeys((13, 52), 0.80),
    **dict.fromkeys((12, 51), 0.62),
    **dict.fromkeys((8, 47), 0.53),
    **dict.fromkeys(WM_IDS, 1.0),
    **dict.fromkeys((16, 28, 60, 85), 0.88),
    **dict.fromkeys((25, 57), 0.70),
    **dict.fromkeys((30, 62), 0.30),
}


@dataclass(frozen=True)
class Recipe:
    """One case: which map, how its file lies on disk and how the scanner was set.

    Attributes:
        head: Number of the label map, 1 to 20.
        orientation: Axis codes of the file.
        tilt: Rotation of the head in the scanner about the left-right axis, in degrees.
        contrast: Factor on the brightness of everything but white matter; nearer 1.2 the tissues look alike.
        noise: Standard deviation of the noise in each complex channel, as a part of the white-matter signal.
    """

    head: int
    orientation: str
    tilt: float
    contrast: float
    noise: float


RECIPES = (
    Recipe(head=1, orientation="LAS", tilt=0.0, contrast=1.00, noise=0.035),
    Recipe(head=4, orientation="RAS", tilt=0.0, contrast=1.12, noise=0.045),
    Recipe(head=8, orientation="LIA", tilt=0.0, contrast=0.92, noise=0.040),
    Recipe(head=10, orientation="LAS", tilt=9.0, contrast=1.06, noise=0.030),
    Recipe(head=17, orientation="PIR", tilt=0.0, contrast=1.16, noise=0.045),
    Recipe(head=19, orientation="RAS", tilt=0.0, contrast=0.96, noise=0.050),
)


def brain_neighbourhood(ids: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Return the brain with its sulci closed and its holes filled, at the grid of `ids` (1 mm).

    The maps' only label for fluid outside the ventricles also fills the neck and the eyes; what lies in
    this neighbourhood is the fluid that a skull-stripped scan keeps.
    """
    brain = np.isin(ids, (*CSF_IDS, *GM_IDS, *WM_IDS))
    parts, _ = ndimage.label(brain)
    brain = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    padded = np.pad(brain, CLOSING + 1)
    near = ndimage.distance_transform_edt(~padded) <= CLOSING
    closed = ndimage.distance_transform_edt(near) > CLOSING
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(closed | padded)
    inside = filled[(slice(CLOSING + 1, -CLOSING - 1),) * ids.ndim]
    return inside & (brain | (ids == 24) | np.isin(ids, CSF_IDS))


def area_average(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average a 1 mm volume over voxels of `SPACING` mm: each fine voxel counts by its overlap."""
    for axis in range(volume.ndim):
        fine = volume.shape[axis]
        edges = np.arange(int(fine // SPACING) + 1) * SPACING
        left = np.maximum(edges[:-1, None], np.arange(fine))
        right = np.minimum(edges[1:, None], np.arange(fine) + 1)
        weights = np.clip(right - left, 0, None).astype(np.float32) / np.float32(SPACING)
        volume = np.moveaxis(np.tensordot(weights, volume, axes=(1, axis)), 0, axis)
    return volume


def tissue_fractions(ids: NDArray[np.int16], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how much of every coarse voxel is background, CSF, GM and WM, shape (4, *coarse)."""
    members = [np.isin(ids, wanted) & inside for wanted in (CSF_IDS, GM_IDS, WM_IDS)]
    tissue = np.stack([area_average(member.astype(np.float32)) for member in members])
    return np.concatenate([1 - tissue.sum(0, keepdims=True), tissue])


def bias_field(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a smooth receive-coil field around 1: a random quadratic, as strong as +-25 %."""
    x = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")).astype(np.float32)
    linear = np.tensordot(rng.uniform(-1, 1, len(shape)), x, axes=1)
    quadratic = np.tensordot(rng.uniform(-1, 1, len(shape)), x**2, axes=1)
    field = linear + quadratic
    field -= field.mean()
    return np.exp(0.25 * field / np.abs(field).max()).astype(np.float32)


def simulate(
    ids: NDArray[np.int16], inside: NDArray[np.bool_], recipe: Recipe, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return the T1-like image of one head on the coarse grid; 0 outside the brain's neighbourhood."""
    white = rng.uniform(500, 900)
    dark = rng.uniform(0.22, 0.32)
    table = np.zeros(int(ids.max()) + 1, np.float32)
    for wanted, brightness in BRIGHTNESS.items():
        if wanted < len(table):
            level = brightness if wanted in WM_IDS else min(brightness * recipe.contrast, 0.97)
            table[wanted] = level * rng.uniform(0.98, 1.02)
    signal = (dark + (1 - dark) * table[np.where(inside, ids, 0)]) * inside
    texture = ndimage.gaussian_filter(rng.standard_normal(ids.shape, np.float32), 3.0)
    signal *= 1 + np.float32(0.03) * texture / texture.std()
    coarse = area_average(ndimage.gaussian_filter(signal, 0.8))
    covered = area_average(inside.astype(np.float32))
    coarse = coarse * bias_field(coarse.shape, rng)
    real, imaginary = rng.normal(0.0, recipe.noise, (2, *coarse.shape))
    magnitude = np.hypot(coarse + real, imaginary) * white
    return np.where(covered >= 0.5, np.maximum(np.rint(magnitude), 1), 0).astype(np.int16)


def make_case(path: Path, recipe: Recipe, rng: np.random.Generator) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Return the T1-like image and the labels made from the label map at `path`."""
    head = nib.as_closest_canonical(nib.load(path))
    ids = np.asarray(head.dataobj, np.int16)
    inside = brain_neighbourhood(ids)
    corners = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    start = [max(int(first) - MARGIN, 0) for first, _ in corners]
    coarse = [
        int(np.ceil((int(last) + 1 + MARGIN - first) / SPACING))
        for first, (_, last) in zip(start, corners, strict=True)
    ]
    crop = tuple(slice(first, first + int(np.ceil(size * SPACING))) for first, size in zip(start, coarse, strict=True))
    ids, inside = ids[crop], inside[crop]

    labels = tissue_fractions(ids, inside).argmax(0).astype(np.uint8)
    image = simulate(ids, inside, recipe, rng)
    labels[image == 0] = BACKGROUND

    angle = np.deg2rad(recipe.tilt)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt * SPACING
    first_centre = np.array(start) + (SPACING - 1) / 2  # of a coarse voxel, in 1 mm voxels
    affine[:3, 3] = np.round(tilt @ nib.affines.apply_affine(head.affine, first_centre), 3)
    return as_file(image, affine, recipe.orientation), as_file(labels, affine, recipe.orientation)


def as_file(array: NDArray[np.generic], affine: NDArray[np.float64], orientation: str) -> nib.Nifti1Image:
    """Return `array` (RAS) as a NIfTI image whose voxels lie in `orientation`, with both form codes 1."""
    ornt = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    image = nib.Nifti1Image(nib.orientations.apply_orientation(array, ornt), affine @ inv_ornt_aff(ornt, array.shape))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"synthetic, from a SynthSeg label map"
    return image


def main() -> None:
    """Write the cohort."""
    parser = argparse.ArgumentParser(description="Make the voxpool sample cohort from SynthSeg label maps.")
    parser.add_argument("--maps", type=Path, required=True, help="folder with headmap_01.nii.gz ...")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "cohort", help="folder to write")
    options = parser.parse_args()
    for number, recipe in enumerate(RECIPES, start=1):
        source = options.maps / f"headmap_{recipe.head:02d}.nii.gz"
        if not source.is_file():
            parser.error(f"{source} is not there; --maps wants the folder with the 20 SynthSeg label maps")
        name = f"sub-{number:02d}"
        image, labels = make_case(source, recipe, np.random.default_rng([SEED, number]))
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / f"{name}_t1.nii.gz")
        nib.save(labels, folder / f"{name}_labels.nii.gz")
        print(f"{name}: {image.shape} {recipe.orientation} from {source.name}")


if __name__ == "__main__":
    main()
