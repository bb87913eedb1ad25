"""What this installation can do, and what is missing for the rest: `voxpool info` and `voxpool doctor`."""

import ctypes.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from rich.console import Console

import voxpool
from voxpool_pipelines.bench.machine import describe_machine

Verdict = Literal["ok", "missing", "wrong"]

# what a part of voxpool imports, and how it is installed
EXTRAS = {
    "viewer": (("napari", "magicgui", "platformdirs", "SimpleITK"), "pip install 'voxpool[napari]'"),
    "DICOM": (("SimpleITK", "pydicom", "highdicom"), "pip install 'voxpool[dicom]'"),
    "ONNX": (("onnx", "onnxscript"), "pip install 'voxpool[export]'"),
    "several processes": (("distributed", "dask_jobqueue"), "pip install 'voxpool[scale]'"),
}
# libraries of the system that Qt loads, and the packages of Debian that have them
_QT_LIBRARIES = {
    "EGL": "libegl1",
    "GL": "libgl1",
    "xkbcommon-x11": "libxkbcommon-x11-0",
    "xcb-cursor": "libxcb-cursor0",
    "xcb-icccm": "libxcb-icccm4",
    "xcb-keysyms": "libxcb-keysyms1",
    "xcb-shape": "libxcb-shape0",
}
_GIB = 2**30
_LEAST_GIB = 2.0


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What it is.
        verdict: "ok"; "missing" for what only some need; "wrong" for what everybody needs.
        found: What was found.
        remedy: What to do, where it is not ok.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def describe_installation() -> dict[str, Any]:
    """Versions, devices, networks and the bundled model, as plain values for JSON."""
    import torch

    from voxpool.engine import use_bf16
    from voxpool.inference import select_device
    from voxpool.model_package import BUNDLED, load_package, weights_sha256
    from voxpool.nets import HEADS, NETS
    from voxpool.nets2d import PLANAR_NETS

    device = select_device("auto")
    _, model = load_package(BUNDLED)
    return {
        "voxpool": voxpool.__version__,
        "device": str(device),
        "bf16": use_bf16("auto", device),
        "machine": describe_machine(device),
        "cuda": torch.version.cuda,
        "networks": {"volumes": list(NETS), "heads": list(HEADS), "images": list(PLANAR_NETS)},
        "bundled_model": {
            "sha256": weights_sha256(BUNDLED),
            "classes": list(model.label_names.values()),
            "channels": list(model.channels),
        },
        "extras": {name: not _absent(packages) for name, (packages, _) in EXTRAS.items()},
    }


def examine() -> list[Check]:
    """Look at everything that voxpool needs or can use."""
    return [check() for check in _CHECKS]


def print_examination(checks: list[Check], console: Console) -> None:
    """One line per check, and the remedy where there is one."""
    marks = {"ok": "ok     ", "missing": "missing", "wrong": "WRONG  "}
    for check in checks:
        remedy = f"; {check.remedy}" if check.remedy else ""
        console.print(
            f"{marks[check.verdict]}  {check.name}: {check.found}{remedy}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def as_json(checks: list[Check]) -> list[dict[str, str]]:
    """Plain values."""
    return [asdict(check) for check in checks]


def _model() -> Check:
    from voxpool.errors import ModelError
    from voxpool.model_package import BUNDLED, load_package

    try:
        load_package(BUNDLED)
    except ModelError as error:
        return Check("bundled model", "wrong", str(error), "install voxpool again")
    return Check("bundled model", "ok", "its checksums are right")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / _GIB
    found = f"{free:.1f} GiB free"
    if free >= _LEAST_GIB:
        return Check("memory", "ok", found)
    return Check("memory", "wrong", found, f"close other programs: a head takes about {_LEAST_GIB:g} GiB")


def _cache() -> Check:
    from voxpool.kernels._cuda import cache_folder

    folder = cache_folder()
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            pass
    except OSError as error:
        remedy = "set VOXPOOL_CACHE to a folder of yours"
        return Check("cache of kernels", "missing", f"cannot be written ({error.strerror})", remedy)
    free = shutil.disk_usage(there).free / _GIB
    return Check("cache of kernels", "ok", f"can be written, {free:.0f} GiB free")


def _gpu() -> Check:
    import torch

    from voxpool.kernels._cuda import refusal

    if not torch.cuda.is_available():
        why = "this PyTorch is for the CPU" if torch.version.cuda is None else "PyTorch finds none"
        return Check("GPU", "missing", why, "nothing to do where there is no NVIDIA GPU; the CPU computes")
    name = torch.cuda.get_device_name()
    reason = refusal()
    if reason is None:
        return Check("GPU", "ok", name)
    found, _, remedy = reason.partition("; ")
    return Check("GPU", "missing", f"{name}, but the kernels need CuPy: {found}", remedy)


def _extra(name: str) -> Check:
    packages, remedy = EXTRAS[name]
    absent = _absent(packages)
    if absent:
        return Check(name, "missing", f"without {', '.join(absent)}", remedy)
    return Check(name, "ok", ", ".join(f"{package} {_version(package)}" for package in packages))


def _screen() -> Check:
    if not sys.platform.startswith("linux"):
        return Check("screen", "ok", sys.platform)
    absent = [package for library, package in _QT_LIBRARIES.items() if ctypes.util.find_library(library) is None]
    if absent:
        return Check("screen", "missing", "Qt lacks libraries", f"run: sudo apt-get install {' '.join(absent)}")
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Check("screen", "missing", "no display", "start the viewer in a desktop session, or under xvfb-run")
    return Check("screen", "ok", "a display and Qt's libraries")


def _absent(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if find_spec(package) is None]


def _version(package: str) -> str:
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return "of unknown version"


_CHECKS: tuple[Callable[[], Check], ...] = (
    _model,
    _memory,
    _cache,
    _gpu,
    *(partial(_extra, name) for name in EXTRAS),
    _screen,
)
