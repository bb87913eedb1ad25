"""A trained model as a folder: `model.safetensors`, `model.json` and `SHA256SUMS`."""

import hashlib
import json
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.errors import ModelError, UsageError, VoxpoolError
from voxpool.io import file_sha256, write_json, write_text
from voxpool.nets import create_net
from voxpool.pickles import refuse_pickle

SCHEMA = 1
WEIGHTS, META, SUMS = "model.safetensors", "model.json", "SHA256SUMS"
BUNDLED = "bundled"
MOST_BYTES = 2 * 10**9
"""What a file of a package may measure."""

_BUNDLED_FOLDER = Path(__file__).parent / "models" / "head"


def model_folder(name: Path | str) -> Path:
    """The folder of a model package: that of the model that comes with voxpool for "bundled", else the path itself."""
    return _BUNDLED_FOLDER if str(name) == BUNDLED else Path(name)


def package_folders(name: Path | str) -> list[Path]:
    """The packages that a name means: one, or those of all folds of a variant.

    Args:
        name: A model package, "bundled", or a folder that holds packages as `fold*/model`, such as that of a
            variant in a run of `crossval`.
    """
    folder = model_folder(name)
    folds = [] if (folder / META).exists() else sorted(folder.glob("fold*/model"))
    return folds or [folder]


def weights_sha256(name: Path | str) -> str:
    """SHA-256 of a model's weights: what tells two models apart. Of several folds, that of their checksums.

    Raises:
        ModelError: If it has no weights.
    """
    try:
        sums = [file_sha256(folder / WEIGHTS) for folder in package_folders(name)]
    except OSError as error:
        raise ModelError(
            f"{Path(name).name} is no model package: it has no {WEIGHTS}; choose another (E502)"
        ) from error
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class ModelInfo:
    """What one must know to use a model's weights.

    Attributes:
        net: Name of the network in `voxpool.nets.NETS`, or of `voxpool.nets.IMPORTED`.
        net_options: Its options, such as {"reduction": 8}.
        head: "base", "v1", "v2" or "v3".
        channels: Names of the image channels, in order.
        label_names: Name of each class id, background included.
        convention: What the classes mean in the training labels, in words.
        preprocess: How volumes are prepared.
        supervoxels: How supervoxels are made, for a head; None for "base".
        training: Where the weights come from: cases, fold, iterations, seed, versions.
        schema: Version of this description.
    """

    net: str
    net_options: dict[str, Any]
    head: str
    channels: tuple[str, ...]
    label_names: dict[int, str]
    convention: str
    preprocess: PreprocessConfig
    supervoxels: SupervoxelConfig | None
    training: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def create(self) -> nn.Module:
        """The network, with new weights."""
        return create_net(self.net, len(self.channels), len(self.label_names), head=self.head, **self.net_options)


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class PlanarInfo:
    """What one must know to use the weights of a network for images.

    Attributes:
        net: Name in `voxpool.nets2d.PLANAR_NETS`.
        net_options: Its options.
        head: "base" or "superpixels".
        label_names: Name of each class.
        colours: Red, green and blue of each class.
        size: (H, W) that an image is brought to; None for its own.
        pixels_each: Pixels of a superpixel at that size; None for "base".
        compactness: Of the superpixels.
        training: Where the weights come from.
        kind: Always "image".
        schema: Version of this description.
    """

    net: str
    net_options: dict[str, Any]
    head: str
    label_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    size: tuple[int, int] | None
    pixels_each: float | None
    compactness: float
    training: dict[str, Any] = field(default_factory=dict)
    kind: Literal["image"] = "image"
    schema: int = SCHEMA

    def create(self) -> nn.Module:
        """The network, with new weights."""
        return create_net(self.net, 3, len(self.label_names), head=self.head, **self.net_options)


_INFO = pydantic.TypeAdapter(ModelInfo)
_PLANAR_INFO = pydantic.TypeAdapter(PlanarInfo)


def save_package(net: nn.Module, info: ModelInfo | PlanarInfo, folder: Path | str) -> Path:
    """Write a model package; an older one at the place is replaced only when the new one is whole.

    Args:
        net: Network with the weights.
        info: Its description.
        folder: Where the package goes.

    Returns:
        The folder.
    """
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed here
    part.mkdir(parents=True)
    try:
        # copies: networks that hold a layer twice share its memory, which safetensors refuses
        weights = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in net.state_dict().items()
        }
        (part / WEIGHTS).write_bytes(save(weights))  # save_file keeps others from reading it
        adapter: pydantic.TypeAdapter[Any] = _INFO if isinstance(info, ModelInfo) else _PLANAR_INFO
        write_json(part / META, adapter.dump_python(info, mode="json"))
        write_text(part / SUMS, "".join(f"{file_sha256(part / name)}  {name}\n" for name in (WEIGHTS, META)))
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def load_package(folder: Path | str) -> tuple[nn.Module, ModelInfo]:
    """Read a model package: checksums first, then the description, then the weights. Nothing in it is executed.

    Args:
        folder: The package, or "bundled" for the model of head MRI that comes with voxpool.

    Returns:
        The network in evaluation mode on the CPU, and its description.

    Raises:
        ModelError: If a file is missing, changed, damaged, or of a newer schema.
    """
    net, info = _load(folder)
    if not isinstance(info, ModelInfo):
        raise ModelError(f"{Path(folder).name} is a model for images; give it to `voxpool evaluate2d`")
    return net, info


def load_planar_package(folder: Path | str) -> tuple[nn.Module, PlanarInfo]:
    """Read the package of a network for images, as `load_package` does.

    Raises:
        ModelError: If a file is missing, changed, damaged, of a newer schema, or of a network for volumes.
    """
    net, info = _load(folder)
    if not isinstance(info, PlanarInfo):
        raise ModelError(f"{Path(folder).name} is a model for volumes; give it to `voxpool predict`")
    return net, info


def _load(folder: Path | str) -> tuple[nn.Module, ModelInfo | PlanarInfo]:
    folder = model_folder(folder)
    refuse_pickle(folder)
    for name in (WEIGHTS, META, SUMS):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder.name} is no model package: it has no {name}; choose a folder made by voxpool (E502)"
            )
    sums = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    for name in (WEIGHTS, META):
        if sums.get(name) != file_sha256(folder / name):
            raise ModelError(f"{folder.name}/{name} does not match its checksum; copy the model package again (E503)")
    info = _read_info(folder / META)
    try:
        net = info.create()
        net.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, TypeError, VoxpoolError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{folder.name}: the weights do not fit the description ({reason}); copy it again (E504)"
        ) from error
    return net.eval(), info


def load_models(name: Path | str) -> tuple[list[nn.Module], ModelInfo]:
    """Read a model package, or all folds of a variant to be asked together.

    Args:
        name: As in `package_folders`.

    Returns:
        The networks in evaluation mode on the CPU, and the description of the first.

    Raises:
        ModelError: If a package is refused, or the folds see their input in different ways.
    """
    folders = package_folders(name)
    loaded = [load_package(folder) for folder in folders]
    first = loaded[0][1]
    for folder, (_, info) in zip(folders, loaded, strict=True):
        if any(getattr(info, key) != getattr(first, key) for key in _SAME):
            raise ModelError(
                f"{folder.parent.name} of {Path(name).name} is of another network, voxel size or classes than"
                f" {folders[0].parent.name}; choose one of the folds"
            )
    return [net for net, _ in loaded], first


# what the folds of a variant must have in common; the number of supervoxels may be chosen fold by fold
_SAME = ("net", "net_options", "head", "channels", "label_names", "preprocess")


def unpack_package(archive: Path | str, folder: Path | str) -> Path:
    """Take a model package out of a zip file, and read it whole before it counts.

    Args:
        archive: Zip file with the package's three files, at its top or in one folder.
        folder: Where the package goes; must not exist.

    Returns:
        The folder.

    Raises:
        ModelError: If the archive is damaged, holds anything else, or the package in it is refused.
        UsageError: If the folder exists.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} is there already; choose another name")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in _checked_members(opened, archive.name):
                with opened.open(member) as source, (part / PurePosixPath(member.filename).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
        load_package(part)
        part.rename(folder)
    # what zipfile raises of damaged files; the last for a compression that it does not know
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ModelError(f"{archive.name} is no zip file that can be read ({error}); copy it again (E502)") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _checked_members(opened: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """The files of an archive, if they are those of one package and nothing else."""
    members = [member for member in opened.infolist() if not member.is_dir()]
    places = [PurePosixPath(member.filename) for member in members]
    if sorted(place.name for place in places) != sorted((WEIGHTS, META, SUMS)) or len({p.parent for p in places}) > 1:
        raise ModelError(
            f"{name} must hold {WEIGHTS}, {META} and {SUMS} and nothing else; ask for the right file (E506)"
        )
    for member, place in zip(members, places, strict=True):
        strange = place.is_absolute() or len(place.parts) > 2 or ".." in place.parts or "\\" in member.filename
        if strange or stat.S_ISLNK(member.external_attr >> 16):
            raise ModelError(f"{name} holds {member.filename}, which lies elsewhere; do not use this file (E506)")
        if member.flag_bits & 1:
            raise ModelError(f"{name} is encrypted; ask for a file without password (E506)")
        if member.file_size > MOST_BYTES:
            raise ModelError(
                f"{name} unpacks to {member.file_size / 1e9:.3g} GB, more than {MOST_BYTES / 1e9:.3g} GB (E506)"
            )
    return members


def _read_info(path: Path) -> ModelInfo | PlanarInfo:
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = values.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise ModelError(f"{path} has schema {schema}, this voxpool knows {SCHEMA}; upgrade voxpool (E505)")
        if values.get("kind") == "image":
            return _PLANAR_INFO.validate_python(values)
        return _INFO.validate_python(values)
    except (json.JSONDecodeError, AttributeError, pydantic.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path} is no description of a model ({reason}); copy the model package again (E504)"
        ) from error
