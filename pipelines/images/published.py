"""What the papers report on each data set, to stand beside one's own figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A table of the papers.

    Attributes:
        title: What it shows, and where it comes from.
        columns: Names of its columns, the first of the networks.
        rows: One per network.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


PUBLISHED = {
    "cityscapes": Published(
        "Cityscapes, test images (Schuurmans et al. 2018; SPSSN)",
        ("network", "class IoU", "category IoU", "class iIoU", "category iIoU", "million weights"),
        (
            ("SegNet", "57.0", "79.1", "32.0", "61.9", "29.5"),
            ("ENet", "58.3", "80.4", "34.4", "64.0", "0.36"),
            ("ENet + superpixels", "61.3", "82.1", "36.8", "66.9", ""),
            ("ThunderNet", "64.0", "84.1", "40.4", "69.3", "4.7"),
            ("ContextNet", "66.1", "82.7", "36.8", "64.3", "0.85"),
            ("ERFNet", "68.0", "86.5", "40.4", "70.4", "2.1"),
            ("Fast-SCNN", "68.0", "84.7", "37.9", "63.5", "1.11"),
            ("SPSSN", "69.4", "86.0", "41.8", "70.2", "1.42"),
            ("ICNet", "69.5", "86.4", "", "", "7.8"),
        ),
    ),
    "camvid": Published(
        "CamVid, test images (SPSSN)",
        ("network", "mean IoU", "class average", "global", "million weights"),
        (
            ("ENet", "51.3", "68.3", "", "0.36"),
            ("ERFNet", "53.1", "65.8", "86.3", ""),
            ("SegNet", "55.6", "65.2", "88.5", "29.5"),
            ("FCN-8s", "57.0", "", "88.0", "134.5"),
            ("DeepLab LargeFOV", "61.6", "", "", "37.3"),
            ("SPSSN", "64.3", "73.6", "91.1", "1.4"),
            ("Dilation8", "65.3", "", "79.0", "140.8"),
        ),
    ),
    "voc": Published(
        "Pascal VOC 2012, test images (each network's paper)",
        ("network", "mean IoU"),
        (
            ("SegNet", "59.9"),
            ("FCN-8s", "67.2"),
            ("Dilation, front end", "71.3"),
            ("Dilation, with context", "73.5"),
            ("DeepLab v2", "79.7"),
            ("GCN", "82.2"),
            ("RefineNet", "84.2"),
            ("PSPNet", "85.4"),
            ("DeepLab v3", "85.7"),
        ),
    ),
}
"""By the layout of the data set."""
