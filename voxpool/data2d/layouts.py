"""Finding the images of a data set: Cityscapes, Pascal VOC (with SBD), CamVid, and plain folders."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxpool.data2d.classes import CAMVID, CITYSCAPES, IGNORED, VOC, ImageClasses, plain_classes
from voxpool.errors import InputError, UsageError
from voxpool.io.image import IMAGE_EXTENSIONS, read_label_image

SPLITS = ("train", "val", "test")
_LABELS = ("{}_labels", "{}annot", "{}_masks", "{}_annot")
_IMAGE_FOLDERS, _LABEL_FOLDERS = ("images", "imgs", "image"), ("labels", "masks", "annotations", "mask", "label")
_CAMVID_NAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")
_EVERY = 5  # of a data set without splits every fifth image is kept for validation


@dataclass(frozen=True)
class ImageCase:
    """An image and its labels.

    Attributes:
        id: Its name, once per data set.
        image: The image file.
        labels: The label image, or the MATLAB file of SBD.
        instances: Cityscapes' instance ids, where they are.
    """

    id: str
    image: Path
    labels: Path
    instances: Path | None = None

    def read_ids(self) -> np.ndarray:
        """Ids as they are in the file, (H, W), int32."""
        return _read_sbd(self.labels) if self.labels.suffix == ".mat" else read_label_image(self.labels)


@dataclass(frozen=True)
class ImageDataset:
    """Images with labels.

    Attributes:
        name: Folder name.
        layout: How it was found: cityscapes, voc, camvid or folder.
        classes: What the labels mean.
        splits: Cases of "train", "val" and "test", as far as there are any.
    """

    name: str
    layout: str
    classes: ImageClasses
    splits: dict[str, tuple[ImageCase, ...]]


def find_images(root: Path | str, *, layout: str = "auto", class_names: tuple[str, ...] | None = None) -> ImageDataset:
    """Find the images of a data set and pair them with their labels.

    * cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine` with `labelIds` and `instanceIds`
    * voc: `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation`; what of SBD (`benchmark_RELEASE/dataset`, or
      label images in `SegmentationClassAug`) is not for validation is added to the training
    * camvid, folder: `train` beside `train_labels` or `trainannot`, likewise `val` and `test`; or `train/images`
      beside `train/labels` or `train/masks`; or `images` beside `labels` or `masks` without splits, of which every
      fifth image is for validation. A file `classes.txt`, a name per line, names the classes.

    Args:
        root: The folder.
        layout: One of the names, or "auto".
        class_names: Names of the classes 0, 1, … of plain folders.

    Raises:
        InputError: If nothing is found, or an image has no labels.
        UsageError: If the layout is unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the folder of a data set of images")
    if layout != "auto" and layout not in _LAYOUTS:
        raise UsageError(f"layout of images must be auto, {', '.join(_LAYOUTS)}, got {layout!r}")
    chosen = _recognise(root) if layout == "auto" else layout
    classes, splits = _LAYOUTS[chosen](root)
    if not any(splits.values()):
        raise InputError(f"{root} holds no images with labels as {chosen} has them; choose another layout or folder")
    if class_names is not None:
        classes = plain_classes(class_names)
    elif classes is None:
        classes = _named_classes(root, splits)
    return ImageDataset(root.resolve().name, chosen, classes, splits)


Splits = dict[str, tuple[ImageCase, ...]]


def _recognise(root: Path) -> str:
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if _voc_root(root) is not None:
        return "voc"
    first = next((path for path in sorted((root / "train").glob("*")) if path.suffix in IMAGE_EXTENSIONS), None)
    return "camvid" if first is not None and _CAMVID_NAME.match(first.name) else "folder"


def _cityscapes(root: Path) -> tuple[ImageClasses | None, Splits]:
    splits: dict[str, list[ImageCase]] = {}
    tail = "_leftImg8bit.png"
    for image in sorted((root / "leftImg8bit").rglob(f"*{tail}")):
        place = image.relative_to(root / "leftImg8bit")
        stem = image.name.removesuffix(tail)
        # the split's test images have labels of the void alone
        split = place.parts[0] if len(place.parts) > 1 else "val"
        labels = root / "gtFine" / place.parent / f"{stem}_gtFine_labelIds.png"
        if split not in ("train", "val"):
            continue
        instances = labels.with_name(f"{stem}_gtFine_instanceIds.png")
        case = ImageCase(stem, image, _there(labels, image), instances if instances.is_file() else None)
        splits.setdefault(split, []).append(case)
    return CITYSCAPES, {name: tuple(cases) for name, cases in splits.items()}


def _voc_root(root: Path) -> Path | None:
    candidates = [root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))]
    return next((each for each in candidates if (each / "ImageSets" / "Segmentation").is_dir()), None)


def _voc(root: Path) -> tuple[ImageClasses | None, Splits]:
    home = _voc_root(root)
    if home is None:
        raise InputError(f"{root} holds no ImageSets/Segmentation; give the folder VOC2012 or the one above it")
    lists = home / "ImageSets" / "Segmentation"

    def case(name: str) -> ImageCase:
        image = home / "JPEGImages" / f"{name}.jpg"
        return ImageCase(name, image, _there(home / "SegmentationClass" / f"{name}.png", image))

    train, val = ([case(name) for name in _names(lists / f"{split}.txt")] for split in ("train", "val"))
    known = {each.id for each in [*train, *val]}
    augmented = home / "SegmentationClassAug"
    sbd = next((each for each in (root / "benchmark_RELEASE" / "dataset", root / "dataset") if each.is_dir()), None)
    if augmented.is_dir():
        for labels in sorted(augmented.glob("*.png")):
            if labels.stem not in known:
                train.append(ImageCase(labels.stem, home / "JPEGImages" / f"{labels.stem}.jpg", labels))
    elif sbd is not None:
        for name in [*_names(sbd / "train.txt"), *_names(sbd / "val.txt")]:
            if name not in known:
                train.append(ImageCase(name, sbd / "img" / f"{name}.jpg", sbd / "cls" / f"{name}.mat"))
    return VOC, {"train": tuple(train), "val": tuple(val)}


def _names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise InputError(
            f"{path.name} is missing beside the images ({error.strerror}); complete the data set"
        ) from error


def _read_sbd(path: Path) -> np.ndarray:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0]).astype(np.int32)
    # what SciPy raises of files that are none of MATLAB's, and of others than SBD's
    except (MatReadError, OSError, ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise InputError(f"{path.name} is no label file of SBD ({error}); copy it again") from error


def _camvid(root: Path) -> tuple[ImageClasses | None, Splits]:
    return CAMVID, _folders(root)[1]


def _folders(root: Path) -> tuple[ImageClasses | None, Splits]:
    splits: Splits = {}
    for split in SPLITS:
        for images, labels in _pairs_of_folders(root, split):
            if images.is_dir() and labels.is_dir() and split not in splits:
                splits[split] = _paired(images, labels)
    if splits:
        return None, splits
    for images, labels in ((root / first, root / second) for first in _IMAGE_FOLDERS for second in _LABEL_FOLDERS):
        if images.is_dir() and labels.is_dir():
            cases = _paired(images, labels)
            val = cases[_EVERY - 1 :: _EVERY] if len(cases) >= _EVERY else cases[-1:]
            return None, {"train": tuple(case for case in cases if case not in val), "val": val}
    return None, {}


def _pairs_of_folders(root: Path, split: str) -> list[tuple[Path, Path]]:
    beside = [(root / split, root / pattern.format(split)) for pattern in _LABELS]
    inside = [(root / split / first, root / split / second) for first in _IMAGE_FOLDERS for second in _LABEL_FOLDERS]
    crossed = [(root / first / split, root / second / split) for first in _IMAGE_FOLDERS for second in _LABEL_FOLDERS]
    return beside + inside + crossed


def _paired(images: Path, labels: Path) -> tuple[ImageCase, ...]:
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS)
    return tuple(ImageCase(path.stem, path, _labels_of(path, labels)) for path in files)


def _labels_of(image: Path, folder: Path) -> Path:
    for name in (image.stem, f"{image.stem}_L", f"{image.stem}_mask", f"{image.stem}_labels"):
        for extension in (".png", ".tif", ".tiff", ".bmp"):
            if (folder / f"{name}{extension}").is_file():
                return folder / f"{name}{extension}"
    raise InputError(f"{image.name} has no labels in {folder.name}; add {image.stem}.png or leave the image out")


def _there(labels: Path, image: Path) -> Path:
    if not labels.is_file():
        raise InputError(f"{image.name} has no labels: {labels.name} is missing; complete the data set")
    return labels


def _named_classes(root: Path, splits: Splits) -> ImageClasses:
    """Names from `classes.txt`, or numbers as far as the label images go."""
    path = root / "classes.txt"
    if path.is_file():
        return plain_classes(
            tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        )
    largest = 1
    for case in (case for cases in splits.values() for case in cases):
        ids = case.read_ids()
        largest = max(largest, int(ids[ids != IGNORED].max(initial=0)))
    return plain_classes(tuple(str(number) for number in range(largest + 1)))


_LAYOUTS: dict[str, Callable[[Path], tuple[ImageClasses | None, Splits]]] = {
    "cityscapes": _cityscapes,
    "voc": _voc,
    "camvid": _camvid,
    "folder": _folders,
}
