"""A segmentation as one picture: three planes through a voxel, the tissues laid over the scan, letters, legend."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from napari_voxpool.session import SegmentationSession
from napari_voxpool.tissues import label_colours
from voxpool.errors import ResourceError
from voxpool.io import atomic_path

HEIGHT = 360
"""Pixels that the tallest plane takes."""

_OPACITY = 0.45
_MARGIN = 14
_WINDOW = (0.5, 99.5)
# axis that is cut, letters at top, bottom, left and right; radiological, the nose to the left
_PLANES = ((0, "APRL"), (1, "SIRL"), (2, "SIAP"))


def export_picture(session: SegmentationSession, path: Path, index: tuple[int, ...], note: str) -> None:
    """Write a PNG file.

    Args:
        session: What is shown, as it is now.
        path: The file.
        index: Voxel (S, A, R) that the three planes go through.
        note: Sentence at the foot.

    Raises:
        ResourceError: If the disk is full, or what was written does not read back as it should.
    """
    scan = np.asarray(session.shown.show(session.shown.volume.array))
    labels = session.correction.labels
    inside = scan[scan > scan.min()]
    low, high = np.percentile(inside, _WINDOW) if inside.size else (0.0, 1.0)
    grey = np.clip((scan - low) / max(high - low, 1e-6), 0, 1)
    colours = label_colours(session.about.label_names)
    table = np.zeros((max(colours) + 1, 4))
    for label, name in colours.items():
        if label:
            table[label] = (*ImageColor.getrgb(name)[:3], _OPACITY)
    size = [count * step for count, step in zip(scan.shape, session.shown.grid.spacing, strict=True)]
    scale = HEIGHT / max(size[0], size[1])
    planes = [
        _plane(np.take(grey, index[axis], axis), table[np.take(labels, index[axis], axis)], axis, size, scale)
        for axis, _ in _PLANES
    ]
    foot = 2 * _MARGIN + 18 * (1 + len(colours) // 4)
    width = sum(plane.width for plane in planes) + 4 * _MARGIN
    picture = Image.new("RGB", (width, HEIGHT + 2 * _MARGIN + foot), "black")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    left = _MARGIN
    for plane, (_, letters) in zip(planes, _PLANES, strict=True):
        top = _MARGIN + (HEIGHT - plane.height) // 2
        picture.paste(plane, (left, top))
        middle = left + plane.width // 2, top + plane.height // 2
        places = (
            (middle[0], top + 2, "ma"),
            (middle[0], top + plane.height - 2, "md"),
            (left + 2, middle[1], "lm"),
            (left + plane.width - 2, middle[1], "rm"),
        )
        for letter, (x, y, anchor) in zip(letters, places, strict=True):
            draw.text((x, y), letter, "white", font, anchor)
        left += plane.width + _MARGIN
    _legend(draw, session, colours, font, HEIGHT + 2 * _MARGIN)
    draw.text((_MARGIN, picture.height - _MARGIN), note, "#aaaaaa", font, "ls")
    with atomic_path(path) as part:
        picture.save(part, "PNG")
    with Image.open(path) as back:
        if back.tobytes() != picture.tobytes():
            raise ResourceError(f"{path} does not read back as it was written; check the disk and export again")


def _plane(grey: np.ndarray, overlay: np.ndarray, axis: int, size: list[float], scale: float) -> Image.Image:
    """One plane, up and the patient's right (or the nose) first, in square pixels."""
    opacity = overlay[..., 3:]
    mixed = 255 * grey[..., None] * (1 - opacity) + overlay[..., :3] * opacity
    up, across = (each for each in range(3) if each != axis)
    pixels = np.ascontiguousarray(mixed.round().astype(np.uint8)[::-1, ::-1])
    shape = max(1, round(size[across] * scale)), max(1, round(size[up] * scale))
    return Image.fromarray(pixels).resize(shape, Image.Resampling.NEAREST)


def _legend(draw: ImageDraw.ImageDraw, session: SegmentationSession, colours: dict, font: object, top: int) -> None:
    left = _MARGIN
    for row in session.correction.rows():
        text = f"{row.name} {row.ml:.1f} mL"
        width = 18 + int(draw.textlength(text, font)) + _MARGIN
        if left + width > draw.im.size[0]:
            left, top = _MARGIN, top + 18
        draw.rectangle((left, top + 3, left + 11, top + 14), colours[row.label])
        draw.text((left + 18, top), text, "white", font)
        left += width
