"""The part of the page that moves through slices."""

import json
from base64 import b64encode

from voxpool_pipelines.report.markup import Markup, join, tag
from voxpool_pipelines.report.slices import ERROR_COLOUR, Gallery, SliceSet, colour
from voxpool_pipelines.report.summary import RunSummary
from voxpool_pipelines.report.words import percent, title


def viewer(summary: RunSummary, gallery: Gallery) -> Markup:
    """The slice viewer with its controls, and the pictures beside it for the page's script.

    Args:
        summary: The run, summarised.
        gallery: The slices.

    Returns:
        The viewer, or a sentence on why there are no slices.
    """
    lost = ""
    if gallery.unreadable:
        lost = tag(
            "p",
            "Left out, because image, truth or prediction could not be read: "
            f"{', '.join(gallery.unreadable)}. Write the report again where the files can be found.",
            class_="note",
        )
    if not gallery.sets:
        return join(lost or tag("p", "There is no finished variant to show slices of.", class_="note"))
    panels = [
        _panel("Image", None),
        _panel("Truth", 0),
        *(_panel(title(each.variant), index) for index, each in enumerate(gallery.shown, start=1)),
    ]
    data = json.dumps({"sets": [_set_data(each) for each in gallery.sets]}, ensure_ascii=False)
    return join(
        tag(
            "div",
            _controls(gallery),
            tag("div", panels, class_="stage"),
            _tissue_legend(summary),
            id="viewer",
        ),
        tag("noscript", tag("p", "The slices need JavaScript.", class_="note")),
        lost,
        tag("script", Markup(data.replace("<", "\\u003c")), type="application/json", id="slice-data"),
    )


def choice(name: str, value: str, text: str, checked: bool) -> Markup:
    """One of several exclusive choices.

    Args:
        name: Name of the group.
        value: Value of this choice.
        text: Its text.
        checked: Whether it is chosen at first.

    Returns:
        A labelled radio button.
    """
    button = tag("input", type="radio", name=name, value=value, checked=checked)
    return tag("label", button, tag("span", text))


def _controls(gallery: Gallery) -> Markup:
    options = [
        tag("option", f"{each.case_id} – {each.role}", value=index, selected=index == 0)
        for index, each in enumerate(gallery.sets)
    ]
    last = len(gallery.sets[0].slices) - 1
    slider = tag("input", type="range", id="slice", min=0, max=last, step=1, value=(last + 1) // 2)
    opacity = tag("input", type="range", id="opacity", min=0, max=100, value=55)
    overlays = tag(
        "div",
        choice("overlay", "classes", "classes", True),
        choice("overlay", "errors", "errors only", False),
        class_="choices",
        role="radiogroup",
        aria_label="What is laid over the image",
    )
    return tag(
        "div",
        tag("label", "Case ", tag("select", options, id="case")),
        tag("label", "Slice ", slider, tag("output", id="slice-label")),
        tag("label", "Overlay ", opacity),
        overlays,
        class_="controls",
    )


def _panel(name: str, layer: int | None) -> Markup:
    """One picture: the image, its overlay, and the letters of the radiological convention."""
    letters = [tag("span", letter, class_=f"side {letter.lower()}", aria_hidden="true") for letter in "RLAP"]
    pictures = [tag("img", class_="anatomy", alt="")]
    if layer is not None:
        pictures.append(tag("img", class_="overlay", alt=""))
    return tag(
        "figure",
        tag("div", pictures, letters, class_="picture"),
        tag("figcaption", tag("b", name), tag("span", class_="score")),
        data_layer="" if layer is None else layer,
        data_name=name,
    )


def _tissue_legend(summary: RunSummary) -> Markup:
    items = [
        tag("li", tag("span", class_="swatch", style=f"--c: rgb{colour(index)}"), name)
        for index, name in enumerate(summary.run.class_names)
    ]
    return tag(
        "ul",
        items,
        tag(
            "li",
            tag("span", class_="swatch", style=f"--c: rgb{ERROR_COLOUR}"),
            "differs from the truth (errors only)",
        ),
        class_="legend",
        aria_label="Colours of the overlays",
    )


def _set_data(case: SliceSet) -> dict[str, object]:
    return {
        "case": case.case_id,
        "aspect": round(case.aspect, 4),
        "depth": case.depth,
        "scores": [
            [f"Dice {percent(scores.dice_foreground)} %"]
            + [f"{name} {percent(score.dice)}" for name, score in scores.classes.items()]
            for scores in case.predictions
        ],
        "slices": [
            {
                "number": each.number,
                "image": _base64(each.image),
                "classes": [_base64(layer) for layer in each.classes],
                "errors": [_base64(layer) for layer in each.errors],
            }
            for each in case.slices
        ],
    }


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
