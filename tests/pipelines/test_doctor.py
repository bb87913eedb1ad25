"""What `voxpool info` and `voxpool doctor` say of an installation."""

import json
import subprocess
import sys

import pytest
import torch

from tests.pipelines.conftest import Run
from voxpool.kernels import _cuda
from voxpool.model_package import BUNDLED, weights_sha256
from voxpool.nets2d import PLANAR_NETS
from voxpool_pipelines import doctor


def voxpool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voxpool_pipelines", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def verdicts() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine()}


def test_info_names_what_is_there(run: Run) -> None:
    done = voxpool("info", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["networks"]["images"] == list(PLANAR_NETS)
    assert found["bundled_model"]["sha256"] == weights_sha256(BUNDLED)
    assert len(found["bundled_model"]["classes"]) == 9
    assert found["extras"] == {"viewer": True, "DICOM": True, "ONNX": True, "several processes": True}
    assert found["bundled_model"]["sha256"][:12] in run("info")[1]


def test_nothing_is_wrong_here(run: Run) -> None:
    done = voxpool("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert found["bundled model"]["verdict"] == found["viewer"]["verdict"] == found["DICOM"]["verdict"] == "ok"
    # a torch for the CPU takes no kernels of a GPU
    assert found["GPU"]["verdict"] == "missing"
    assert "the CPU computes" in run("doctor")[1]


def test_what_is_missing_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "viewer", (("napari", "not_there_at_all"), "pip install 'voxpool[napari]'"))
    check = verdicts()["viewer"]
    assert (check.verdict, check.found) == ("missing", "without not_there_at_all")
    assert check.remedy == "pip install 'voxpool[napari]'"


def test_a_gpu_without_its_cupy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(_cuda, "refusal", lambda: _cuda._refusal.__wrapped__("12.8", "2.13.0"))
    check = verdicts()["GPU"]
    assert check.verdict == "missing"
    assert check.found.startswith("A GPU, but the kernels need CuPy: needs CuPy for CUDA 12")
    assert check.remedy == "run: pip install 'voxpool[cuda12]'"


def test_a_damaged_model_is_wrong_for_everybody(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from voxpool import model_package

    monkeypatch.setattr(model_package, "_BUNDLED_FOLDER", tmp_path)
    check = verdicts()["bundled model"]
    assert check.verdict == "wrong"
    assert check.remedy == "install voxpool again"


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    check = verdicts()["cache of kernels"]
    assert (check.verdict, check.found) == ("missing", "cannot be written (Permission denied)")
    assert "VOXPOOL_CACHE" in check.remedy
