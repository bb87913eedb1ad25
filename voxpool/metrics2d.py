"""Scores of label images, all from one confusion matrix: IoU, Dice, accuracies; and Cityscapes' own, with instances.

A confusion matrix M counts pixels by [true class, predicted class]. Pixels whose true class is ignored count nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxpool.errors import UsageError


def confusion_matrix(
    target: np.ndarray, prediction: np.ndarray, num_classes: int, *, ignore: int | None = None
) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        target: True classes, any shape, integers.
        prediction: Predicted classes, the same shape.
        num_classes: Number of classes.
        ignore: True class that counts nowhere, such as 255.

    Returns:
        (num_classes, num_classes), int64; matrices of several images add up.

    Raises:
        UsageError: If the shapes differ, or a class is none of them.
    """
    if target.shape != prediction.shape:
        raise UsageError(f"target and prediction must have one shape, got {target.shape} and {prediction.shape}")
    true, found = target.reshape(-1).astype(np.int64), prediction.reshape(-1).astype(np.int64)
    if ignore is not None:
        counted = true != ignore
        true, found = true[counted], found[counted]
    for name, values in (("target", true), ("prediction", found)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise UsageError(
                f"the {name} holds classes {values.min()} to {values.max()}, wanted 0 to {num_classes - 1}; "
                "name the ignored one, or give the number of classes"
            )
    return np.bincount(true * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class PlanarScores:
    """What a confusion matrix says; NaN for a class that neither truth nor prediction has.

    Attributes:
        iou: Intersection over union of each class.
        dice: Dice of each class, which is its F1.
        sensitivity: Share of each class's true pixels that were found.
        pixel_accuracy: Share of all pixels that are right, "global".
    """

    iou: np.ndarray
    dice: np.ndarray
    sensitivity: np.ndarray
    pixel_accuracy: float

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that are there."""
        return _nanmean(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that are there."""
        return _nanmean(self.dice)

    @property
    def mean_accuracy(self) -> float:
        """Mean sensitivity over the classes that the truth has, "class average"."""
        return _nanmean(self.sensitivity)


def score_matrix(matrix: np.ndarray) -> PlanarScores:
    """Scores of a confusion matrix.

    Args:
        matrix: [true, predicted], see `confusion_matrix`.
    """
    hits = np.diag(matrix).astype(np.float64)
    missed, false = matrix.sum(1) - hits, matrix.sum(0) - hits
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing to score
        iou = hits / (hits + missed + false)
        dice = 2 * hits / (2 * hits + missed + false)
        sensitivity = hits / (hits + missed)
    total = matrix.sum()
    return PlanarScores(iou, dice, sensitivity, float(hits.sum() / total) if total else float("nan"))


@dataclass(frozen=True)
class CityscapesLabel:
    """A label of Cityscapes.

    Attributes:
        id: In the label images.
        name: Its name.
        category: What it belongs to.
        instances: Whether single objects are told apart.
        scored: Whether it counts.
    """

    id: int
    name: str
    category: str
    instances: bool
    scored: bool


def _labels(category: str, text: str, *, instances: bool = False, scored: bool = True) -> list[CityscapesLabel]:
    pairs = (each.split(" ", 1) for each in text.split(", "))
    return [CityscapesLabel(int(number), name, category, instances, scored) for number, name in pairs]


CITYSCAPES: tuple[CityscapesLabel, ...] = tuple(
    sorted(
        [
            *_labels(
                "void",
                "0 unlabeled, 1 ego vehicle, 2 rectification border, 3 out of roi, 4 static, 5 dynamic, 6 ground",
                scored=False,
            ),
            *_labels("flat", "7 road, 8 sidewalk"),
            *_labels("flat", "9 parking, 10 rail track", scored=False),
            *_labels("construction", "11 building, 12 wall, 13 fence"),
            *_labels("construction", "14 guard rail, 15 bridge, 16 tunnel", scored=False),
            *_labels("object", "17 pole, 19 traffic light, 20 traffic sign"),
            *_labels("object", "18 polegroup", scored=False),
            *_labels("nature", "21 vegetation, 22 terrain"),
            *_labels("sky", "23 sky"),
            *_labels("human", "24 person, 25 rider", instances=True),
            *_labels("vehicle", "26 car, 27 truck, 28 bus, 31 train, 32 motorcycle, 33 bicycle", instances=True),
            *_labels("vehicle", "29 caravan, 30 trailer", instances=True, scored=False),
        ],
        key=lambda label: label.id,
    )
)
"""The labels by their ids, 0 to 33."""

MEAN_PIXELS = {
    "bicycle": 4672.3249222261,
    "caravan": 36771.8241758242,
    "motorcycle": 6298.7200839748,
    "rider": 3930.4788056518,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "car": 12794.0202738185,
    "person": 3462.4756337644,
    "truck": 27855.1264367816,
    "trailer": 16926.9763313609,
}
"""Mean size of an object of each class in the training set, in pixels: instances are weighted by it."""

_CROWD = 1000  # instance ids below are crowds, not single objects


class CityscapesScores:
    """Cityscapes' scores over a set of images: IoU and instance-weighted IoU, of classes and of categories.

    Add each image, then read the scores. Instances weigh by their class's mean size over their own, so that a small
    object counts as much as a large one; false positives belong to no instance and count as they are.

    Attributes:
        matrix: Confusion matrix over the 34 label ids.
    """

    def __init__(self) -> None:
        count = len(CITYSCAPES)
        self.matrix = np.zeros((count, count), np.int64)
        # weighted pixels of instances, found and missed: as their class, and as any of their category
        self._class = np.zeros((count, 2))
        self._category = np.zeros((count, 2))

    def add(self, target: np.ndarray, instances: np.ndarray, prediction: np.ndarray) -> None:
        """Count an image.

        Args:
            target: True label ids, (H, W).
            instances: Instance ids as in Cityscapes' files, (H, W): label id, or 1000 · label id + number.
            prediction: Predicted label ids, (H, W).

        Raises:
            UsageError: If the shapes differ, or an id is none of Cityscapes'.
        """
        if instances.shape != target.shape:
            raise UsageError(f"target and instances must have one shape, got {target.shape} and {instances.shape}")
        self.matrix += confusion_matrix(target, prediction, len(CITYSCAPES))
        for number in np.unique(instances[instances >= _CROWD]):
            label = CITYSCAPES[int(number) // _CROWD]
            if not label.scored:
                continue
            found = prediction[instances == number]
            weight = MEAN_PIXELS[label.name] / found.size
            for counts, hits in (
                (self._class, found == label.id),
                (self._category, np.isin(found, _ids(label.category, scored=False))),
            ):
                right = int(np.count_nonzero(hits))
                counts[label.id] += weight * right, weight * (found.size - right)

    def class_iou(self) -> dict[str, float]:
        """IoU of the 19 scored classes."""
        return {label.name: self._iou([label.id], others=_scored_but([label.id])) for label in _scored()}

    def category_iou(self) -> dict[str, float]:
        """IoU of the seven categories."""
        return {name: self._iou(_ids(name), others=self._outside(name)) for name in _categories()}

    def class_iiou(self) -> dict[str, float]:
        """Instance-weighted IoU of the eight classes of single objects."""
        return {
            label.name: self._weighted(self._class[label.id], [label.id], _scored_but([label.id]))
            for label in _scored()
            if label.instances
        }

    def category_iiou(self) -> dict[str, float]:
        """Instance-weighted IoU of the two categories of single objects; any of a category counts as a hit."""
        found = {}
        for name in ("human", "vehicle"):
            members = _ids(name, scored=False)
            found[name] = self._weighted(self._category[members].sum(0), members, self._outside(name))
        return found

    def _iou(self, members: Sequence[int], others: Sequence[int]) -> float:
        hits = self.matrix[np.ix_(members, members)].sum()
        missed = self.matrix[members].sum() - hits
        return _share(float(hits), float(missed), float(self.matrix[np.ix_(others, members)].sum()))

    def _weighted(self, counts: np.ndarray, members: Sequence[int], others: Sequence[int]) -> float:
        return _share(float(counts[0]), float(counts[1]), float(self.matrix[np.ix_(others, members)].sum()))

    @staticmethod
    def _outside(category: str) -> list[int]:
        return [label.id for label in _scored() if label.category != category]


def _scored() -> list[CityscapesLabel]:
    return [label for label in CITYSCAPES if label.scored]


def _scored_but(left_out: Sequence[int]) -> list[int]:
    return [label.id for label in _scored() if label.id not in left_out]


def _ids(category: str, *, scored: bool = True) -> list[int]:
    """Label ids of a category: those that count, or all."""
    return [label.id for label in CITYSCAPES if label.category == category and (label.scored or not scored)]


def _categories() -> list[str]:
    return list(dict.fromkeys(label.category for label in _scored()))


def _share(hits: float, missed: float, false: float) -> float:
    total = hits + missed + false
    return hits / total if total else float("nan")


def _nanmean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
