"""A MONAI bundle of others as a model package: its configuration is asked once, what comes out is data alone."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigComponent, ConfigParser
from torch import Tensor

from voxpool.data.intensity import OPTIONS, IntensityStep
from voxpool.data.transforms import PreprocessConfig
from voxpool.errors import ModelError, UsageError
from voxpool.io import file_sha256
from voxpool.model_package import META, ModelInfo, load_package, save_package
from voxpool.nets.monai_net import MONAI_NETS
from voxpool.pickles import refuse_pickle

_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
_WEIGHTS = Path("models") / "model.pt"
# steps that read a file or convert types, which voxpool does itself
_READING = frozenset({"LoadImage", "EnsureChannelFirst", "EnsureType", "CastToType"})
# steps from scores to labels on the scan's grid and into a file, which voxpool does itself
_DECIDING = frozenset({"Activations", "Invert", "AsDiscrete", "EnsureType", "SaveImage"})
# options of steps that are read below, or that change no label
_FREE: Mapping[str, frozenset[str]] = {
    "Orientation": frozenset({"axcodes"}),
    "Spacing": frozenset({"pixdim", "mode", "dtype", "ensure_same_shape"}),
    "Activations": frozenset({"softmax"}),
    "AsDiscrete": frozenset({"argmax"}),
    "Invert": frozenset(
        {
            "transform",
            "orig_keys",
            "meta_keys",
            "orig_meta_keys",
            "meta_key_postfix",
            "nearest_interp",
            "to_tensor",
            "device",
        }
    ),
}
# and options that may be given where they say what voxpool does: MONAI's defaults
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "Orientation": {"as_closest_canonical": False, "labels": None},
    "Spacing": {
        "diagonal": False,
        "padding_mode": "border",
        "align_corners": False,
        "scale_extent": False,
        "recompute_affine": False,
        "min_pixdim": None,
        "max_pixdim": None,
    },
    "Activations": {"sigmoid": False, "other": None},
    "AsDiscrete": {"to_onehot": None, "threshold": None, "rounding": None},
    "Invert": {"post_func": None},
}
_OF_ALL = frozenset({"keys", "allow_missing_keys", "lazy"})
# what the windows are made of, and arguments of the inferer that do not change what comes out
_WINDOW = ("roi_size", "overlap", "mode")
_INDIFFERENT = frozenset({"sw_batch_size", "progress", "cache_roi_weight_map", "device", "sw_device", "cpu_thresh"})


def import_bundle(bundle: Path | str, package: Path | str, *, trust: bool = False) -> Path:
    """Make a model package of a MONAI bundle.

    A bundle that voxpool wrote holds one. The configuration of any other is code: its expressions are evaluated to
    learn the network, the windows and the intensities, so it must be trusted. Of the weights only tensors are read.
    The package that comes out holds data alone; nothing of the bundle runs any more.

    Args:
        bundle: Folder with `configs`, and `models/model.pt` or a model package as `models`.
        package: Where the model package goes; must not exist.
        trust: Whether the configuration may run.

    Returns:
        The folder of the package.

    Raises:
        ModelError: If the folder is no bundle, is not trusted, or holds what a model package has no form for: another
            network than `voxpool.nets.monai_net.MONAI_NETS`, another step than reading, RAS orientation, voxel
            size, intensities and the highest score, classes that overlap, no sliding windows, or a pickle with code.
        UsageError: If the package exists.
    """
    bundle, package = Path(bundle), Path(package)
    if package.exists():
        raise UsageError(f"{package} is there already; choose another name")
    if (bundle / "models" / META).is_file():
        return save_package(*load_package(bundle / "models"), package)
    config = next((bundle / "configs" / name for name in _CONFIGS if (bundle / "configs" / name).is_file()), None)
    metadata = bundle / "configs" / "metadata.json"
    if config is None or not metadata.is_file():
        raise ModelError(
            f"{bundle.name} is no MONAI bundle: it has no configs/metadata.json with configs/inference.json;"
            " give the bundle's folder (E507)"
        )
    if not trust:
        raise ModelError(
            f"{bundle.name} comes from others, and its configuration is code that would run with your rights;"
            f" read configs/{config.name}, then give --trust if you trust it (E507)"
        )
    info = _describe(_Config(bundle, config))
    return save_package(_network(bundle, info), info, package)


class _Config:
    """A bundle's configuration, as far as it is evaluated.

    Args:
        bundle: Its folder.
        path: Configuration of its inference.

    Raises:
        ModelError: If a file is damaged.
    """

    def __init__(self, bundle: Path, path: Path) -> None:
        self.name, self.path, self.weights = bundle.name, path, bundle / _WEIGHTS
        try:
            self._parser = ConfigParser()
            self._parser.read_config(path)
            self._parser.read_meta(path.with_name("metadata.json"))
        except Exception as error:  # whatever the readers of JSON and YAML raise of a damaged file
            raise self.refusal(f"cannot be read ({error})") from error
        self._parser["bundle_root"] = str(bundle)
        self.metadata: Mapping[str, Any] = self._parser.get(ConfigParser.meta_key, {})

    def refusal(self, what: str) -> ModelError:
        """The error that says what of the configuration has no form in a model package."""
        return ModelError(f"{self.name}: {self.path.name} {what}; run this bundle with MONAI (E507)")

    def component(self, key: str) -> tuple[str, dict[str, Any]] | None:
        """Name of a component's class and its arguments; None where it is switched off.

        Raises:
            ModelError: If there is none, or an expression in it fails.
        """
        try:
            item = self._parser.get_parsed_content(key, instantiate=False)
            if isinstance(item, ConfigComponent):
                name = str(item.resolve_module_name()).rpartition(".")[2]
                return None if item.is_disabled() else (name, item.resolve_args())
        except Exception as error:  # an expression is code, and may raise anything
            raise self.refusal(f"cannot be evaluated at {key} ({error})") from error
        raise self.refusal(f"has no {key} with a _target_")

    def steps(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """The components of a chain of transforms, without the "d" of those that work on dictionaries."""
        listed = self._parser.get(f"{key}::transforms")
        if not isinstance(listed, Sequence):
            raise self.refusal(f"has no list of transforms in {key}")
        found = [self.component(f"{key}::transforms::{number}") for number in range(len(listed))]
        return [
            (name.removesuffix("Dict").removesuffix("D").removesuffix("d"), given)
            for name, given in filter(None, found)
        ]


def _describe(config: _Config) -> ModelInfo:
    network, arguments = _required(config, "network_def")
    if network not in MONAI_NETS:
        raise config.refusal(f"has the network {network}, none of {', '.join(MONAI_NETS)}")
    if arguments.pop("spatial_dims", 3) != 3:
        raise config.refusal("has a network for images, not for volumes")
    channels, classes = arguments.pop("in_channels", 1), arguments.pop("out_channels", None)
    if not isinstance(channels, int):
        raise config.refusal(f"has {channels} channels, not a number")
    names, labels = _named(config)
    if sorted(labels) != list(range(len(labels))) or len(labels) != classes:
        raise ModelError(
            f"{config.name}: metadata.json names {len(labels)} classes, its network scores {classes};"
            " complete channel_def of the outputs (E507)"
        )
    _require_exclusive(config)
    return ModelInfo(
        net="monai",
        net_options={"network": network, "arguments": _plain(config, arguments), **_windows(config)},
        head="base",
        channels=tuple(names.get(number, f"channel {number}") for number in range(channels)),
        label_names=labels,
        convention=f"as in the bundle {config.metadata.get('name', config.name)}",
        preprocess=_preprocessing(config),
        supervoxels=None,
        training={
            "bundle": str(config.metadata.get("name", config.name)),
            "version": str(config.metadata.get("version", "")),
            "weights_sha256": file_sha256(config.weights) if config.weights.is_file() else None,
        },
    )


def _required(config: _Config, key: str) -> tuple[str, dict[str, Any]]:
    found = config.component(key)
    if found is None:
        raise config.refusal(f"has switched {key} off")
    return found


def _named(config: _Config) -> tuple[dict[int, str], dict[int, str]]:
    """Names of the channels and of the classes, by number."""
    try:
        formats = config.metadata["network_data_format"]
        inputs, outputs = formats["inputs"]["image"], formats["outputs"]
        given = (inputs["channel_def"], outputs.get("pred", next(iter(outputs.values())))["channel_def"])
        channels, classes = ({int(number): str(name) for number, name in each.items()} for each in given)
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise ModelError(
            f"{config.name}: metadata.json does not name channels and classes by number (network_data_format,"
            " channel_def); complete it (E507)"
        ) from error
    return channels, classes


def _require_exclusive(config: _Config) -> None:
    """Refuse classes that may overlap, since a label map holds one per voxel, and what changes labels afterwards."""
    steps = config.steps("postprocessing")
    if any(name == "Activations" and given.get("sigmoid") for name, given in steps):
        raise config.refusal("decides every class for itself (sigmoid), and a label map holds one per voxel")
    if not any(name == "AsDiscrete" and given.get("argmax") for name, given in steps):
        raise config.refusal("does not take the class with the highest score (AsDiscreted with argmax)")
    for name, given in steps:
        if name not in _DECIDING:
            raise config.refusal(f"changes labels by {name}")
        _require_known(config, name, given)


def _require_known(config: _Config, name: str, given: Mapping[str, Any]) -> None:
    """Refuse options of a step that voxpool would not follow."""
    if name not in _FREE:
        return
    for option in sorted(set(given) - _FREE[name] - _OF_ALL):
        value, fixed = given[option], _FIXED[name]
        each = value if isinstance(value, (list, tuple)) else [value]
        if option not in fixed or any(one != fixed[option] for one in each):
            raise config.refusal(f"gives {name} the option {option}, {value}")


def _windows(config: _Config) -> dict[str, Any]:
    name, given = _required(config, "inferer")
    if name != "SlidingWindowInferer":
        raise config.refusal(f"asks the network by {name}, not by SlidingWindowInferer")
    strange = set(given) - set(_WINDOW) - _INDIFFERENT
    if strange:
        raise config.refusal(f"gives the windows {', '.join(sorted(strange))}")
    roi_size = given.get("roi_size")
    if isinstance(roi_size, int):
        given["roi_size"] = [roi_size] * 3
    elif not isinstance(roi_size, Sequence) or len(roi_size) != 3:
        raise config.refusal(f"has windows of size {roi_size}, not of three axes")
    return {key: _plain(config, given[key]) for key in _WINDOW if key in given}


def _preprocessing(config: _Config) -> PreprocessConfig:
    oriented, spacing = False, None
    intensity: list[IntensityStep] = []
    for name, given in config.steps("preprocessing"):
        _require_known(config, name, given)
        if name in _READING:
            continue
        if name == "Orientation" and given.get("axcodes") == "RAS":
            oriented = True
        elif name == "Spacing" and oriented and not intensity and _is_linear(given.get("mode", "bilinear")):
            spacing = _spacing(config, given.get("pixdim"))
        elif name in OPTIONS:
            options = {key: value for key, value in given.items() if key not in _OF_ALL | {"dtype"}}
            try:
                intensity.append(IntensityStep(name, _plain(config, options)))
            except ValueError as error:
                raise config.refusal(f"prepares scans otherwise ({error})") from error
        else:
            raise config.refusal(f"prepares scans by {name}, {given}")
    if not oriented:
        raise config.refusal("does not turn scans to RAS (Orientationd)")
    return PreprocessConfig(spacing, crop_margin=None, keep_outside=True, intensity=tuple(intensity))


def _spacing(config: _Config, pixdim: Any) -> tuple[float, float, float]:
    if isinstance(pixdim, Sequence) and len(pixdim) == 3 and all(float(mm) > 0 for mm in pixdim):
        return float(pixdim[0]), float(pixdim[1]), float(pixdim[2])
    raise config.refusal(f"has the voxel size {pixdim}, not one of three axes in mm")


def _is_linear(mode: Any) -> bool:
    return (mode[0] if isinstance(mode, Sequence) and not isinstance(mode, str) else mode) in ("bilinear", 1)


def _plain(config: _Config, value: Any) -> Any:
    """A value as JSON holds it; whatever else an expression made is refused."""
    if isinstance(value, Mapping):
        return {str(key): _plain(config, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(config, inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise config.refusal(f"makes an argument of type {type(value).__name__}, which is no plain value")


def _network(bundle: Path, info: ModelInfo) -> torch.nn.Module:
    """The network with the bundle's weights."""
    path = bundle / _WEIGHTS
    if not path.is_file():
        raise ModelError(f"{bundle.name} has no {_WEIGHTS}; fetch the bundle's weights (E507)")
    refuse_pickle(path, plain_tensors=True)
    try:
        net = info.create()
    except UsageError as error:
        raise ModelError(f"{bundle.name}: {error} (E507)") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        weights = next((loaded[key] for key in ("state_dict", "model") if isinstance(loaded.get(key), Mapping)), loaded)
        net.load_state_dict({f"net.{name}": value for name, value in weights.items() if isinstance(value, Tensor)})
    # damaged, another object than tensors, or weights of another network
    except (OSError, EOFError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{bundle.name}: {_WEIGHTS} does not hold the network's weights ({reason}); fetch it again (E504)"
        ) from error
    return net
