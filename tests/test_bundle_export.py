"""A model package as a MONAI bundle: run by MONAI, it gives what voxpool gives."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from tests.test_model_package import INFO
from voxpool.bundle_export import export_bundle
from voxpool.errors import ModelError, UsageError
from voxpool.inference import Segmenter
from voxpool.io import read_volume
from voxpool.model_package import load_package, save_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save_package(INFO.create(), INFO, tmp_path / "package")


def test_monai_runs_it(package: Path, cohort: Path, tmp_path: Path) -> None:
    bundle = export_bundle(package, tmp_path / "bundle")
    scan, labels = cohort / "sub-2" / "sub-2_t1.nii.gz", tmp_path / "labels.nii.gz"
    options = {"bundle_root": bundle, "input": scan, "output": labels, "device": "cpu"}
    settings = {"config_file": bundle / "configs" / "inference.json"} | options
    # what `python -m monai.bundle run` calls, which wants one more package to read its options
    script = f"from monai.bundle import run\nrun(**{ ({key: str(value) for key, value in settings.items()})!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    wanted = Segmenter.load(package, device="cpu").segment([read_volume(scan)]).labels
    np.testing.assert_array_equal(np.asarray(nib.load(labels).dataobj), wanted)
    np.testing.assert_allclose(nib.load(labels).affine, nib.load(scan).affine, atol=1e-5)


def test_what_a_bundle_must_hold(package: Path, tmp_path: Path) -> None:
    bundle = export_bundle(package, tmp_path / "bundle")
    # the keys that MONAI's own check of metadata wants
    metadata = ConfigParser.load_config_file(bundle / "configs" / "metadata.json")
    wanted = {"version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors"}
    assert wanted <= set(metadata)
    outputs = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert outputs == {str(label): name for label, name in INFO.label_names.items()}
    assert load_package(bundle / "models")[1] == INFO
    assert not [path for path in bundle.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]
    assert json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))["run"] == ["@write"]


def test_nothing_is_written_over_and_nothing_half(package: Path, tmp_path: Path) -> None:
    bundle = export_bundle(package, tmp_path / "bundle")
    with pytest.raises(UsageError, match="is there already"):
        export_bundle(package, bundle)
    (package / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="E503"):
        export_bundle(package, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "package"]
