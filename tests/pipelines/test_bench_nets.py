"""What `voxpool bench nets` and `bench blocks` measure: every row there, counts that are right."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.pipelines.small_files import save_untrained
from voxpool.data import find_dataset
from voxpool.errors import ModelError
from voxpool.layers.counts import count_macs
from voxpool.nets import create_net
from voxpool_pipelines.bench.blocks import run_bench_blocks
from voxpool_pipelines.bench.nets import Plan, run_bench_nets


def test_networks_are_timed_alone_with_superpixels_and_in_blocks(tmp_path: Path) -> None:
    out = tmp_path / "nets.json"
    plan = Plan(size=(64, 120), thresholds=(-1.0, 0.3, 1e9), block=64, samples=1)
    run_bench_nets(("fast_scnn",), plan, device="cpu", json=out, console=Console(quiet=True))
    (row,) = json.loads(out.read_text(encoding="utf-8"))["nets"]
    assert row["gmacs"] == pytest.approx(count_macs(create_net("fast_scnn"), (1, 3, 64, 120)) / 1e9)
    assert all(row["times"][name]["ms"] > 0 for name in ("net", "superpixels", "slic"))
    full, mixed, coarse = row["blocks"]
    # one half of the made image is noise, the other plain
    assert [each["share_high"] for each in row["blocks"]] == [1.0, 0.5, 0.0]
    assert full["gmacs"] == pytest.approx(count_macs(create_net("fast_scnn"), (1, 3, 64, 128)) / 1e9)
    assert coarse["gmacs"] == pytest.approx(count_macs(create_net("fast_scnn"), (1, 3, 32, 64)) / 1e9)
    assert coarse["gmacs"] < mixed["gmacs"] < full["gmacs"]


def test_volumes_are_segmented_with_blocks(cohort: Path, tmp_path: Path) -> None:
    model = save_untrained(tmp_path / "model", seed=0)
    dataset = find_dataset(cohort, image="*_t1.nii.gz", labels="*_labels.nii.gz")
    found = run_bench_blocks(
        model,
        dataset,
        thresholds=(-1.0, 0.2),
        block=16,
        cases=1,
        device="cpu",
        json=tmp_path / "blocks.json",
        console=Console(quiet=True),
    )
    whole, full, mixed = found["rows"]
    assert [row["tau"] for row in found["rows"]] == ["network", "-1", "0.2"]
    assert whole["dice"] == pytest.approx(full["dice"], abs=1e-3)
    assert whole["gmacs"] == pytest.approx(full["gmacs"])
    assert 0 < mixed["share_high"] < 1
    assert mixed["gmacs"] < full["gmacs"]
    assert (tmp_path / "blocks.json").exists()
    with pytest.raises(ModelError, match="give a VoxResNet without head"):
        run_bench_blocks(
            Path("bundled"), dataset, thresholds=(), block=16, cases=1, device="cpu", json=None, console=Console()
        )
