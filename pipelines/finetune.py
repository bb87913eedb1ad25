"""A network that begins from a model of whole heads, for a data set whose labels are coarser."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from torch import nn

from voxpool.data import Dataset
from voxpool.data.head_labels import CLASSES, CONVENTIONS, TISSUES
from voxpool.errors import UsageError
from voxpool.model_package import load_package
from voxpool.nets import GuidedVoxResNet, SupervoxelNet, create_net
from voxpool_pipelines.config import GUIDED

_SHORT = {"bg": TISSUES[0], TISSUES[0]: TISSUES[0]} | {name.lower(): name for name in TISSUES[1:]}
ONE_MM = (1.0, 1.0, 1.0)


def tissue_labels(label_names: Mapping[int, str]) -> np.ndarray:
    """What each label of a data set is in `voxpool.data.head_labels.TISSUES`, by label.

    Args:
        label_names: Names by label: background (or BG), CSF, GM and WM in any order and case.

    Raises:
        UsageError: If the names are others.
    """
    tissues = {_SHORT.get(name.lower(), ""): label for label, name in label_names.items()}
    if len(label_names) != len(TISSUES) or set(tissues) != set(TISSUES):
        raise UsageError(
            "a model of whole heads is compared with background, CSF, GM and WM, but the data set's labels are"
            f" {', '.join(label_names.values())}; name them with --label-names"
        )
    table = np.zeros(max(label_names) + 1, np.int64)
    for index, tissue in enumerate(TISSUES):
        table[tissues[tissue]] = index
    return table


def merged_classes(label_names: Mapping[int, str], convention: str) -> tuple[int, ...]:
    """The label of a data set that each class of the model becomes.

    Args:
        label_names: As in `tissue_labels`.
        convention: A key of `voxpool.data.head_labels.CONVENTIONS`.

    Raises:
        UsageError: If the names are others, or the convention is unknown.
    """
    if convention not in CONVENTIONS:
        raise UsageError(f"--convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    tissues = tissue_labels(label_names)
    labels = {int(tissue): label for label, tissue in enumerate(tissues) if label in label_names}
    return tuple(labels[tissue] for tissue in CONVENTIONS[convention])


def guided_options(dataset: Dataset, convention: str) -> dict[str, object]:
    """Options of the guided network for a data set.

    Raises:
        UsageError: If its labels are not tissues, or its images have several channels.
    """
    if len(dataset.cases[0].images) > 1:
        raise UsageError(f"{GUIDED} takes one image per case, the data set has {len(dataset.cases[0].images)}")
    return {"merged": list(merged_classes(dataset.label_names, convention))}


def begin_from(init: str, dataset: Dataset, convention: str) -> nn.Module:
    """The guided network with the weights of a model package; what its supervoxel head learnt stays behind.

    Args:
        init: Model package, or "bundled".
        dataset: What it is to be trained on.
        convention: How the model's classes merge.

    Raises:
        UsageError: If package or data set do not go with it.
        ModelError: If the package is refused.
    """
    options = guided_options(dataset, convention)
    net, info = load_package(init)
    if info.net != GUIDED or tuple(info.label_names.values()) != CLASSES:
        raise UsageError(f"--init {init} is a {info.net}; take a model that `pretrain` made, or bundled")
    learnt = net.base if isinstance(net, SupervoxelNet) else net
    fresh = cast(GuidedVoxResNet, create_net(GUIDED, 1, len(TISSUES), **options))
    fresh.load_state_dict(learnt.state_dict())
    return fresh.train()


def guided_spacing(asked: tuple[float, float, float] | str) -> tuple[float, float, float]:
    """The working voxel size of the guided network, the only one that it knows.

    Raises:
        UsageError: If another was asked for.
    """
    if asked not in ("auto", ONE_MM):
        raise UsageError(f"{GUIDED} works at 1 mm, --spacing asks for {asked}; give auto or '1 1 1'")
    return ONE_MM
