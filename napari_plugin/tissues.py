"""Colours of tissues, the same in every result, and told apart by colour-blind readers."""

from collections.abc import Collection

# Okabe and Ito's palette, the orange darker: without green cones it was too near to the yellow
_COLOURS = {"CSF": "#56b4e9", "GM": "#cf8500", "WM": "#f0e442"}
# classes of whole heads: a tissue's family shares its hue
_COLOURS |= {
    "ventricular CSF": "#0072b2",
    "extra-ventricular CSF": "#56b4e9",
    "cortical GM": "#cf8500",
    "deep GM": "#9a3b00",
    "cerebellar GM": "#cc79a7",
    "cerebellar WM": "#fffad0",
    "brain stem": "#009e73",
}
_OTHERS = ("#009e73", "#cc79a7", "#d55e00", "#0072b2", "#999999")


def colormap_of(label_names: dict[int, str], hidden: Collection[int] = ()) -> dict[int | None, str]:
    """Colours of a labels layer: those of `label_colours`, nothing for hidden classes and for what has no name."""
    colours: dict[int | None, str] = {None: "transparent"}
    return colours | label_colours(label_names) | dict.fromkeys(hidden, "transparent")


def label_colours(label_names: dict[int, str]) -> dict[int, str]:
    """A colour per class id: background transparent, a tissue the same in every result."""
    colours = {}
    others = 0
    for label, name in label_names.items():
        if label == 0:
            colours[label] = "transparent"
        elif name in _COLOURS:
            colours[label] = _COLOURS[name]
        else:
            colours[label] = _OTHERS[others % len(_OTHERS)]
            others += 1
    return colours
