"""The classes of image data sets: names, colours, and what the ids in their files mean."""

from dataclasses import dataclass

import numpy as np

from voxpool import metrics2d
from voxpool.errors import InputError

IGNORED = 255
"""What a pixel is that counts nowhere."""


@dataclass(frozen=True)
class ImageClasses:
    """Classes of a data set.

    Attributes:
        names: Name of each class.
        colours: Red, green and blue of each class.
        file_ids: Id of each class in the label files.
        void_ids: Ids in the files that count nowhere; None when all other ids do.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    file_ids: tuple[int, ...]
    void_ids: tuple[int, ...] | None = (IGNORED,)

    def from_file(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Classes 0 to C - 1, or `IGNORED`, of the ids in a file.

        Args:
            ids: Ids as read, any shape.
            name: The file's name, for the error.

        Raises:
            InputError: If an id is neither a class nor void.
        """
        table = np.full(max(int(ids.max(initial=0)), *self.file_ids) + 1, -1, np.int16)
        if self.void_ids is None:
            table[:] = IGNORED
        else:
            table[[each for each in self.void_ids if each < table.size]] = IGNORED
        table[list(self.file_ids)] = range(len(self.file_ids))
        classes = table[ids] if ids.min(initial=0) >= 0 else np.full(ids.shape, -1, np.int16)
        if classes.min(initial=0) < 0:
            strange = int(ids[classes < 0][0])
            raise InputError(
                f"{name} holds the id {strange}, which is none of the {len(self.names)} classes; name all classes"
            )
        return classes.astype(np.uint8)


def plain_classes(names: tuple[str, ...]) -> ImageClasses:
    """Classes 0 to C - 1 by name, with colours that are easy to tell apart; 255 is void."""
    return ImageClasses(names, tuple(_colour(number) for number in range(len(names))), tuple(range(len(names))))


def _colour(number: int) -> tuple[int, int, int]:
    """The usual colours of Pascal VOC: the bits of the number, dealt to red, green and blue from the top."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


CAMVID = ImageClasses(
    ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    tuple(range(11)),
    (11, IGNORED),
)
"""CamVid's eleven classes in SegNet's order; 11 is void."""

_SCORED = [label for label in metrics2d.CITYSCAPES if label.scored]

CITYSCAPES = ImageClasses(
    tuple(label.name for label in _SCORED),
    (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    tuple(label.id for label in _SCORED),
    None,
)
"""The 19 classes of Cityscapes that are scored, of label ids; all other ids are void."""

VOC = plain_classes(
    (
        "background",
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
        *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )
)
"""Background and the twenty classes of Pascal VOC; 255 is void."""
