"""`voxpool bench slic`: the same number of segments, true accuracies, and a ratio that follows from the times."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from voxpool.supervoxels import oracle_labels
from voxpool_pipelines.bench import slic as bench
from voxpool_pipelines.bench.generators import Generator, ours, peers
from voxpool_pipelines.bench.volumes import BenchVolume, phantoms

SPACE = (24, 28, 20)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("bench") / "slic.json"
    result = bench.run_bench_slic(
        dataset=None, cases=1, device="cpu", json=path, quick=True, console=Console(quiet=True)
    )
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    return result


def test_every_volume_has_every_peer_that_can_take_it(found: dict) -> None:
    names = [peer.name for peer in peers()]
    assert "scikit-image" in names
    assert [(case["masked"], case["spacing"]) for case in found["cases"]] == [
        (False, [1.0, 1.0, 1.0]),
        (True, [1.0, 1.0, 1.0]),
        (False, [2.5, 1.0, 1.0]),
    ]
    for case in found["cases"]:
        rows = [row["peer"] for row in case["rows"]]
        assert rows == [peer.name for peer in peers() if peer.masks or not case["masked"]]
        for row in case["rows"]:
            assert row["ratio"] == pytest.approx(row["theirs"]["seconds"] / row["ours"]["seconds"])
            difference = abs(row["ours"]["segments"] / row["theirs"]["segments"] - 1)
            assert row["matched"] == (difference <= bench.MATCHED)
            assert row["theirs"]["low"] <= row["theirs"]["seconds"] <= row["theirs"]["high"]


@pytest.mark.parametrize("number", range(3))
def test_the_accuracy_is_that_of_the_best_labels_within_the_mask(number: int) -> None:
    volume = list(phantoms(SPACE))[number]
    segments = ours(volume, 60)
    inside = segments >= 0
    best = oracle_labels(segments, volume.labels, 4)
    matched = bench._measured(Generator("voxpool", "voxpool", ours), volume, 60)
    assert matched.segments == segments.max() + 1
    assert matched.accuracy == pytest.approx((best == volume.labels)[inside].mean())


def test_ours_is_asked_for_as_many_as_the_peer_made() -> None:
    volume = next(phantoms(SPACE))
    few = Generator("few", "voxpool", lambda volume, asked: ours(volume, max(1, asked // 2)))
    assert bench._match(few, volume, 80).segments == pytest.approx(80, rel=bench.MATCHED)


def test_what_takes_long_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def slow(volume: BenchVolume, asked: int) -> np.ndarray:
        runs.append(asked)
        return ours(volume, asked)

    monkeypatch.setattr(bench, "peers", lambda: (Generator("slow", "voxpool", slow),))
    monkeypatch.setattr(bench, "_SLOW", 0.0)
    case = bench.measure_volume(next(phantoms(SPACE)), 40, on_gpu=False, samples=2)
    assert runs == [40]
    assert case["rows"][0]["theirs"]["clean"] is False
    assert case["rows"][0]["theirs"]["seconds"] > 0


def test_images_of_a_user_are_measured_whole_and_within_the_brain(cohort: Path) -> None:
    from voxpool.data import find_dataset
    from voxpool_pipelines.bench.volumes import volumes_of

    dataset = find_dataset(cohort, image=["*_t1.nii.gz"], labels="*_labels.nii.gz")
    volumes = list(volumes_of(dataset, 1))
    assert [volume.mask is None for volume in volumes] == [True, False]
    assert 0 < volumes[1].voxels < volumes[0].voxels
    assert volumes[0].image.min() == 0
    assert volumes[0].image.max() == 1
    assert set(np.unique(volumes[0].labels)) == {0, 1, 2, 3}
