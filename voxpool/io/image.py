"""Images and label images for the networks for images: PNG, JPEG and what else Pillow reads."""

from pathlib import Path

import numpy as np

from voxpool.errors import InputError, UsageError
from voxpool.io.atomic import atomic_path

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".webp")
"""Endings of the files that `read_image` takes."""

_LABEL_MODES = ("L", "P", "I", "I;16", "1")


def read_image(path: Path | str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a colour image; a grey one becomes three equal channels.

    Args:
        path: The file.
        size: (H, W) to shrink or enlarge it to, smoothly; None for its own.

    Returns:
        (H, W, 3), uint8.

    Raises:
        InputError: If the file is missing, damaged or no image.
    """
    from PIL import Image

    opened = _open(Path(path))
    rgb = opened.convert("RGB")
    if size is not None and rgb.size != size[::-1]:
        rgb = rgb.resize(size[::-1], Image.Resampling.BILINEAR)  # Pillow averages where it shrinks
    return np.asarray(rgb)


def read_label_image(path: Path | str) -> np.ndarray:
    """Read a label image: ids as grey values or as numbers of a palette.

    Args:
        path: The file.

    Returns:
        (H, W), int32.

    Raises:
        InputError: If the file is missing, damaged, or a colour image.
    """
    opened = _open(Path(path))
    if opened.mode not in _LABEL_MODES:
        raise InputError(
            f"{Path(path).name} is a colour image ({opened.mode}), wanted ids as grey values or palette numbers; "
            "convert its colours to ids"
        )
    return np.asarray(opened).astype(np.int32)


def write_label_image(
    path: Path | str, labels: np.ndarray, colours: tuple[tuple[int, int, int], ...] | None = None
) -> None:
    """Write a label image as PNG: ids as grey values or, with colours, as numbers of a palette.

    Args:
        path: The file, ending in .png.
        labels: (H, W), ids 0 to 255.
        colours: Red, green and blue of each id, for programs that show it.

    Raises:
        UsageError: If an id does not fit.
    """
    from PIL import Image

    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise UsageError(f"a label image holds ids 0 to 255, got {labels.min()} to {labels.max()}")
    image = Image.fromarray(labels.astype(np.uint8))
    if colours is not None:
        image.putpalette([value for colour in colours for value in colour])
    with atomic_path(path) as part:
        image.save(part, format="PNG")


def _open(path: Path) -> "Image.Image":  # type: ignore[name-defined]  # noqa: F821 - Pillow is imported where used
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(path)
        opened.load()
    except FileNotFoundError as error:
        raise InputError(f"{path.name} is not there; check the path") from error
    # what Pillow raises of damaged files; the last for sizes that only an attack has
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path.name} is no image that can be read ({error}); save it as PNG or JPEG") from error
    return opened
