"""`voxpool bench cohort`: both engines on the same copies, and a picture of what was measured."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.pipelines.small_files import image, save
from voxpool.errors import InputError
from voxpool_pipelines.bench.cohort import run_bench_cohort


def test_both_engines_write_the_same(tiny_model: Path, tmp_path: Path) -> None:
    scan, told, plot = save(tmp_path, image()), tmp_path / "cohort.json", tmp_path / "cohort.svg"
    console = Console(record=True, width=200, file=(tmp_path / "said.txt").open("w"))
    options = {"copies": 5, "workers": 2, "rounds": 1, "console": console, "json": told, "plot": plot}
    found = run_bench_cohort(scan, model=tiny_model, **options)
    assert json.loads(told.read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    assert found["same"]
    assert found["speedup"] == pytest.approx(found["seconds"]["serial"] / found["seconds"]["dask"])
    for run in found["runs"]:
        counts = [done for _, done, _ in run["samples"]]
        assert counts == sorted(counts)
        assert counts[-1] <= 5
        assert max(megabytes for _, _, megabytes in run["samples"]) > 1
    assert "the same bytes" in console.export_text()
    lines = [one for one in ElementTree.parse(plot).iter() if one.tag.endswith("polyline")]
    assert len(lines) == 4
    with pytest.raises(InputError, match="E101"):
        run_bench_cohort(tmp_path / "gone.nii.gz", model=tiny_model, **options)
