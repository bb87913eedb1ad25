"""Model packages: what is written is what is read, and nothing else is."""

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.errors import ModelError, UsageError
from voxpool.model_package import ModelInfo, load_package, save_package, unpack_package
from voxpool.nets import create_net

INFO = ModelInfo(
    net="voxresnet",
    net_options={"reduction": 8},
    head="v3",
    channels=("T1",),
    label_names={0: "BG", 1: "CSF", 2: "GM", 3: "WM"},
    convention="ventricles only",
    preprocess=PreprocessConfig(spacing=(1.0, 1.0, 1.5)),
    supervoxels=SupervoxelConfig("slic", 500, 0.2),
    training={"fold": 1, "cases": ["a", "b"]},
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_package(create_net("voxresnet", reduction=8, head="v3"), INFO, tmp_path / "model")


def sign(package: Path) -> None:
    """Checksums of what lies there now."""
    names = ("model.safetensors", "model.json")
    lines = [f"{hashlib.sha256((package / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (package / "SHA256SUMS").write_text("".join(lines))


def test_round_trip(package: Path) -> None:
    net, info = load_package(package)
    assert info == INFO
    assert not net.training
    torch.manual_seed(0)
    want = create_net("voxresnet", reduction=8, head="v3").state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, want[name])
    assert sorted(path.name for path in package.iterdir()) == ["SHA256SUMS", "model.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in package.iterdir()}) == 1  # who may read one may read all


def test_a_package_is_replaced_as_a_whole(package: Path) -> None:
    torch.manual_seed(1)
    save_package(create_net("voxresnet", reduction=8, head="v3"), INFO, package)
    torch.manual_seed(0)
    old = create_net("voxresnet", reduction=8, head="v3").state_dict()
    new = load_package(package)[0].state_dict()
    assert any(not torch.equal(new[name], old[name]) for name in old)
    assert [path.name for path in package.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "SHA256SUMS"])
def test_a_missing_file_is_named(package: Path, name: str) -> None:
    (package / name).unlink()
    with pytest.raises(ModelError, match=f"it has no {name}"):
        load_package(package)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_changed_file_is_refused(package: Path, name: str) -> None:
    data = bytearray((package / name).read_bytes())
    data[-3] ^= 1
    (package / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} does not match its checksum"):
        load_package(package)


def test_a_newer_schema_is_refused(package: Path) -> None:
    info = json.loads((package / "model.json").read_text(encoding="utf-8"))
    (package / "model.json").write_text(json.dumps(info | {"schema": 2}))
    sign(package)
    with pytest.raises(ModelError, match="schema 2, this voxpool knows 1; upgrade voxpool"):
        load_package(package)


@pytest.mark.parametrize("content", ["not json", "[]", '{"net": "voxresnet"}', '{"schema": 1, "extra": 2}'])
def test_a_strange_description_is_refused(package: Path, content: str) -> None:
    (package / "model.json").write_text(content)
    sign(package)
    with pytest.raises(ModelError, match="no description of a model"):
        load_package(package)


@pytest.mark.parametrize("change", [{"head": "base"}, {"net_options": {"reduction": 4}}, {"net": "unet"}])
def test_weights_that_do_not_fit_are_refused(package: Path, change: dict[str, object]) -> None:
    info = json.loads((package / "model.json").read_text(encoding="utf-8"))
    (package / "model.json").write_text(json.dumps(info | change))
    sign(package)
    with pytest.raises(ModelError, match="the weights do not fit the description"):
        load_package(package)


def test_a_pickle_is_not_executed(package: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    (package / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    sign(package)
    with pytest.raises(ModelError, match="do not fit the description"):
        load_package(package)
    assert not (tmp_path / "executed").exists()


def _zip(package: Path, archive: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(package.iterdir()):
            out.write(path, folder + path.name)
    return archive


@pytest.mark.parametrize("folder", ["", "my model/"])
def test_a_zip_of_a_package_is_unpacked_whole(package: Path, tmp_path: Path, folder: str) -> None:
    archive = _zip(package, tmp_path / "model.zip", folder)
    place = unpack_package(archive, tmp_path / "models" / "mine")
    assert load_package(place)[1] == INFO
    for path in package.iterdir():
        assert (place / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        unpack_package(archive, place)


def test_a_zip_that_is_more_or_less_than_a_package_leaves_nothing(package: Path, tmp_path: Path) -> None:
    def changed(name: str, change) -> Path:
        archive = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(archive, "w") as out:
            for path in sorted(package.iterdir()):
                change(out, path)
        return archive

    def with_link(out: zipfile.ZipFile, path: Path) -> None:
        info = zipfile.ZipInfo(path.name)
        info.external_attr = (0o120777 if path.name == "model.json" else 0o100644) << 16
        out.writestr(info, "/etc/passwd" if path.name == "model.json" else path.read_bytes())

    def extra(out: zipfile.ZipFile, path: Path) -> None:
        out.write(path, path.name)
        if path.name == "model.json":
            out.writestr("setup.py", "import os")

    whole = _zip(package, tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.zip").write_text("no zip")
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    wrong = tmp_path / "wrong"
    shutil.copytree(package, wrong)
    (wrong / "model.json").write_text((wrong / "model.json").read_text().replace("ventricles", "Ventricles"))
    for archive, message in {
        changed("up", lambda out, path: out.write(path, f"../{path.name}")): "lies elsewhere",
        changed(
            "root", lambda out, path: out.writestr(zipfile.ZipInfo(f"/{path.name}"), path.read_bytes())
        ): "elsewhere",
        changed("deep", lambda out, path: out.write(path, f"a/b/{path.name}")): "lies elsewhere",
        changed("split", lambda out, path: out.write(path, f"{path.stem}/{path.name}")): "nothing else",
        changed("link", with_link): "lies elsewhere",
        changed("extra", extra): "nothing else",
        tmp_path / "cut.zip": "no zip file that can be read",
        tmp_path / "text.zip": "no zip file that can be read",
        tmp_path / "flipped.zip": "no zip file that can be read|checksum",
        tmp_path / "gone.zip": "no zip file that can be read",
        _zip(wrong, tmp_path / "wrong.zip"): "does not match its checksum",
    }.items():
        with pytest.raises(ModelError, match=message):
            unpack_package(archive, tmp_path / "models" / "mine")
        assert list((tmp_path / "models").iterdir()) == [], archive.name
