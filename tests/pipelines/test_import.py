"""The command `voxpool import`: from a bundle of others to labels."""

import json
from pathlib import Path

from tests.pipelines.conftest import Run
from tests.test_bundle_import import bundle_of, config


def test_a_bundle_is_refused_then_trusted_then_used(run: Run, cohort: Path, tmp_path: Path) -> None:
    bundle, package, out = (
        bundle_of(tmp_path / "spleen", config([2.0, 2.0, 2.0])),
        tmp_path / "package",
        tmp_path / "out",
    )
    code, said = run("import", bundle, "--out", package)
    assert code == 5
    assert "E507" in said
    assert "--trust" in said
    assert not package.exists()
    code, said = run("import", bundle, "--out", package, "--trust")
    assert code == 0, said
    code, said = run("predict", cohort / "sub-2" / "sub-2_t1.nii.gz", "--model", package, "--out", out)
    assert code == 0, said
    (sidecar,) = out.rglob("*.json")
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    assert set(told["volumes_ml"]) == {"spleen", "liver"}
