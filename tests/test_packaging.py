"""What is installed is what the tree holds, and importing it stays light."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = SETTINGS["package-dir"]


def _folder(package: str) -> Path:
    top, *rest = package.split(".")
    return ROOT / Path(FOLDERS[top], *rest)


def test_the_package_list_is_the_tree() -> None:
    found = set()
    for name, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / folder).parts]))
    assert sorted(found) == sorted(SETTINGS["packages"])


def test_the_wheel_holds_every_source_and_data_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *FOLDERS.values()):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("voxpool-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = set()
    for package in SETTINGS["packages"]:
        for path in _folder(package).iterdir():
            if path.is_file() and path.suffix != ".pyc":
                wanted.add("/".join([*package.split("."), path.name]))
    models = ROOT / "voxpool" / "models"
    wanted |= {f"voxpool/models/{path.relative_to(models).as_posix()}" for path in models.rglob("*") if path.is_file()}
    assert "voxpool/models/head/model.safetensors" in wanted
    assert wanted <= names
    extra = {name for name in names - wanted if ".dist-info/" not in name}
    assert not extra


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import voxpool", {"torch", "monai", "numba", "numpy", "nibabel"}),
        ("import voxpool.data, voxpool.io", {"torch", "monai", "numba"}),
        ("from voxpool import slic", {"torch", "monai", "numba"}),
        ("from voxpool import segment_pool", {"numba", "monai", "cupy", "nibabel"}),
        # MONAI loads CuPy by itself where it is installed
        ("from voxpool import Segmenter", {"SimpleITK", "napari", "numba", "typer"}),
    ],
)
def test_imports_stay_light(statement: str, absent: set[str]) -> None:
    script = f"{statement}\nimport sys\nprint(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == []


def test_every_public_name_can_be_had() -> None:
    import voxpool

    assert sorted(voxpool.__all__) == dir(voxpool)
    for name in voxpool.__all__:
        assert getattr(voxpool, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        voxpool.nothing  # noqa: B018
