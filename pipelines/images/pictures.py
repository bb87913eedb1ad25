"""Pictures of the report: some validation images with the truth and what each network made of them."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from voxpool.data2d import ImageCase, ImageClasses
from voxpool.data2d.classes import IGNORED
from voxpool.io.image import read_image, read_label_image
from voxpool_pipelines.images.config import BASE
from voxpool_pipelines.report.markup import Markup, tag
from voxpool_pipelines.run_folder import read_json

_WIDTH = 240
_SHARES = (0.9, 0.5, 0.1)  # a good image, a middling one and a bad one


def gallery(run: Path, about: dict[str, Any], results: list[dict[str, Any]]) -> Markup | None:
    """Rows of pictures, or None where the label images or the data are gone.

    Args:
        run: The run folder.
        about: Its `run.json`.
        results: Those of the finished networks.
    """
    data = about["data"]
    classes = ImageClasses(
        tuple(data["classes"]),
        tuple((red, green, blue) for red, green, blue in data["colours"]),
        tuple(data["file_ids"]),
        None if data["void_ids"] is None else tuple(data["void_ids"]),
    )
    records = {case["id"]: case for case in read_json(run / "dataset.json")["cases"] if case["split"] == "val"}
    first = next((result for result in results if result["variant"]["head"] == BASE), results[0])
    ranked = sorted((row for row in first["images"] if row["mean_iou"] is not None), key=lambda row: row["mean_iou"])
    rows = []
    for share in _SHARES if ranked else ():
        name = ranked[round(share * (len(ranked) - 1))]["id"]
        case = ImageCase(name, Path(records[name]["image"]), Path(records[name]["labels"]))
        files = {each["variant"]["id"]: run / "variants" / each["variant"]["id"] / "labels" for each in results}
        found = {variant: folder / f"{name}.png" for variant, folder in files.items()}
        if not all(path.is_file() for path in (case.image, case.labels, *found.values())):
            return None
        rows.append(_row(case, classes, found))
    return tag("div", rows) if rows else None


def _row(case: ImageCase, classes: ImageClasses, found: dict[str, Path]) -> Markup:
    colours = np.zeros((IGNORED + 1, 3), np.uint8)
    colours[: len(classes.colours)] = classes.colours
    truth = classes.from_file(case.read_ids(), case.labels.name)
    labels = {"truth": truth} | {
        variant: np.where(truth == IGNORED, IGNORED, read_label_image(path)) for variant, path in found.items()
    }
    pictures = {case.id: _shrunk(read_image(case.image), Image.Resampling.BILINEAR)}
    pictures |= {name: _shrunk(colours[each], Image.Resampling.NEAREST) for name, each in labels.items()}
    return tag(
        "div",
        (
            tag("figure", tag("img", src=_data(picture), alt=name, width=_WIDTH), tag("figcaption", name))
            for name, picture in pictures.items()
        ),
        class_="pictures",
    )


def _shrunk(colours: np.ndarray, how: Image.Resampling) -> Image.Image:
    image = Image.fromarray(colours)
    return image.resize((_WIDTH, max(1, round(_WIDTH * image.height / image.width))), how)


def _data(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()
