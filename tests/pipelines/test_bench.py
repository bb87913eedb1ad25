"""`voxpool bench pool`: checked before timed, complete, and against a limit that is measured beside."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.pipelines.conftest import Run
from voxpool import segment_pool
from voxpool.kernels import bandwidth_numba, peers_numba
from voxpool_pipelines.bench.cases import QUICK_CASES, Case, make_inputs
from voxpool_pipelines.bench.methods import Method, all_methods
from voxpool_pipelines.bench.pool import PASSES, run_bench_pool
from voxpool_pipelines.bench.reference import WrongResultError, check_forward, check_gradient, make_reference
from voxpool_pipelines.bench.timing import interleave

CPU = torch.device("cpu")
PEERS = {
    "max": {"voxpool", "numba prange", "torch scatter_reduce amax", "scipy.ndimage"},
    "mean": {"voxpool", "numba prange", "torch scatter_add, divide", "torch index_add, divide", "scipy.ndimage"},
}
NO_GRADIENT = {"scipy.ndimage"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("bench")
    found, plot = folder / "new" / "pool.json", folder / "new" / "pool.svg"
    command = [sys.executable, "-m", "voxpool_pipelines", "bench", "pool", "--quick", "--json", found, "--plot", plot]
    return found, plot, subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


def test_every_method_has_its_rows(files: tuple[Path, Path, str]) -> None:
    found = json.loads(files[0].read_text(encoding="utf-8"))
    assert found["device"] == "cpu"
    assert found["machine"]["threads"] >= 1
    assert found["machine"]["versions"]["torch"]
    layouts = [(case["dtype"], case["layout"]) for case in found["cases"]]
    assert layouts == [("float32", "contiguous"), ("float32", "channels-last"), ("bfloat16", "contiguous")]
    assert set(found["sweeps"]) == {"voxels", "segments"}
    for case in [*found["cases"], *found["sweeps"]["voxels"], *found["sweeps"]["segments"]]:
        assert case["correct"] is True
        assert 0 <= case["other_work"] <= 1
        plain = (case["dtype"], case["layout"]) == ("float32", "contiguous")
        for reduce, peers in PEERS.items():
            for which in PASSES:
                rows = {row["method"] for row in case["rows"] if (row["reduce"], row["pass"]) == (reduce, which)}
                wanted = peers - (NO_GRADIENT if which == PASSES[1] else set()) if plain else {"voxpool"}
                assert rows - {"torch_scatter"} == wanted


def test_ratios_and_rates_follow_from_the_times(files: tuple[Path, Path, str]) -> None:
    found = json.loads(files[0].read_text(encoding="utf-8"))
    for case in found["cases"]:
        size = case["channels"] * case["voxels"] * (2 if case["dtype"] == "bfloat16" else 4)
        for row in case["rows"]:
            assert row["ratio"] == pytest.approx(row["ms"] / case["floors"][row["pass"]]["ms"])
            traffic = size * (1 if row["pass"] == "forward" else 2)
            assert row["gb_per_s"] == pytest.approx(traffic / (row["ms"] / 1000) / 1e9)
            assert row["low_ms"] <= row["ms"] <= row["high_ms"]
            assert row["samples"] >= 1


def test_the_sweeps_grow_in_what_they_are_named_after(files: tuple[Path, Path, str]) -> None:
    sweeps = json.loads(files[0].read_text(encoding="utf-8"))["sweeps"]
    for over, key, other in (("voxels", "voxels", "n"), ("segments", "num_segments", "voxels")):
        steps = [case[key] for case in sweeps[over]]
        assert steps == sorted(set(steps))
        assert len({case.get(other) for case in sweeps[over]}) == 1


def test_the_plot_holds_every_point(files: tuple[Path, Path, str]) -> None:
    sweeps = json.loads(files[0].read_text(encoding="utf-8"))["sweeps"]
    svg = "{http://www.w3.org/2000/svg}"
    circles = list(ET.parse(files[1]).getroot().iter(f"{svg}circle"))
    rows = sum(len(case["rows"]) for cases in sweeps.values() for case in cases)
    floors = sum(2 * len(case["floors"]) for cases in sweeps.values() for case in cases)
    assert len(circles) == rows + floors
    assert all(0 < float(circle.get(axis)) < 1100 for circle in circles for axis in ("cx", "cy"))
    # a time of twice another's lies as far above it as another pair of that kind: the axis is logarithmic
    case = sweeps["voxels"][0]
    titles = {title.text for title in ET.parse(files[1]).getroot().iter(f"{svg}title")}
    assert f"voxpool: {case['rows'][0]['ms']:.3g} ms at {case['voxels']:,}" in titles


def test_the_table_is_printed(files: tuple[Path, Path, str]) -> None:
    stdout = files[2]
    for word in ("max, forward+backward", "mean, forward", "floor: read, write fresh", *PEERS["max"], "bfloat16"):
        assert word in stdout
    assert "scipy.ndimage: one channel, times C" in stdout
    assert "\u2026" not in stdout  # nothing is cut off in 80 columns


def _spoiled(what: str) -> Method:
    """Our maximum with one wrong number in its values, positions or gradient."""
    ours = next(method for method in all_methods() if method.name == "voxpool")

    def forward(inputs):
        values, argmax = ours.forward(inputs)
        if what == "values":
            values[-1, 7] += 1e-3
        if what == "positions":
            argmax[-1, 7] += 1
        return values, argmax

    def gradient(inputs):
        found = ours.gradient(inputs)
        if what == "gradients":
            found[0, -1, -1, -1, -1] += 1
        return found

    return replace(ours, name="spoiled", forward=forward, gradient=gradient)


@pytest.mark.parametrize("what", ["values", "positions", "gradients"])
def test_a_wrong_result_is_not_timed(what: str, tmp_path: Path) -> None:
    file = tmp_path / "pool.json"
    with pytest.raises(WrongResultError, match=f"^spoiled gives wrong {what} for the max, so nothing was timed"):
        run_bench_pool(
            device="cpu", json=file, plot=None, quick=True, console=Console(quiet=True), methods=[_spoiled(what)]
        )
    assert not file.exists()


def test_a_rounding_too_many_in_a_mean_is_noticed() -> None:
    inputs = make_inputs(QUICK_CASES[0], CPU)
    reference = make_reference(inputs)

    def rounded(inputs):
        return segment_pool(inputs.x.bfloat16(), inputs.supervoxels, reduce="mean")[0].float(), None

    with pytest.raises(WrongResultError, match="wrong values for the mean"):
        check_forward(Method("rounded", "mean", rounded), inputs, reference)

    def uneven(inputs):
        return (inputs.grad[0, :, inputs.ids] / inputs.counts.max()).contiguous()

    with pytest.raises(WrongResultError, match="wrong gradients for the mean"):
        check_gradient(Method("uneven", "mean", rounded, uneven), inputs, reference)


def test_the_reference_obeys_a_plain_loop() -> None:
    inputs = make_inputs(Case(2, (16, 16, 16), 20, dtype=torch.bfloat16), CPU)  # bfloat16: many ties
    reference = make_reference(inputs)
    ids, rows = inputs.ids.numpy(), inputs.flat.double().numpy()
    ties = 0
    for k in range(inputs.num_segments):
        (inside,) = np.nonzero(ids == k)
        assert reference.counts[k] == len(inside)
        for c, row in enumerate(rows):
            assert reference.maxima[c, k] == max(row[inside])
            assert reference.first[c, k] == inside[np.argmax(row[inside])]
            assert reference.means[c, k] == pytest.approx(sum(row[inside]) / len(inside), abs=1e-12)
            ties += int((row[inside] == max(row[inside])).sum() > 1)
    assert ties > 0


def test_the_floor_reads_everything() -> None:
    x = torch.randint(0, 8, (3, 5, 7, 11)).float()
    assert bandwidth_numba.read(x) == x.sum()
    assert bandwidth_numba.read(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)) == x.sum()
    half = torch.ones((2, 4), dtype=torch.bfloat16)
    pair = np.array([0x3F803F80], np.uint32).view(np.float32)[0]  # two bfloat16 ones taken as one float32
    assert bandwidth_numba.read(half) == pytest.approx(4 * float(pair))
    written = bandwidth_numba.read_and_write(x)
    assert written.shape == x.shape
    assert written.data_ptr() != x.data_ptr()
    assert not written.any()


def test_peers_ignore_what_has_no_supervoxel() -> None:
    x = torch.tensor([[1.0, 5.0, 2.0, 4.0, 9.0], [3.0, 1.0, 8.0, 6.0, 9.0]])
    ids = torch.tensor([0, 0, 2, 2, -1], dtype=torch.int32)
    values, argmax = peers_numba.segment_max(x, ids, 3)
    assert values.tolist() == [[5, 0, 4], [3, 0, 8]]
    assert argmax.tolist() == [[1, -1, 3], [0, -1, 2]]
    means, counts = peers_numba.segment_mean(x, ids, 3)
    assert means.tolist() == [[3, 0, 3], [2, 0, 7]]
    grad = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert peers_numba.max_gradient(grad, argmax, 5).tolist() == [[0, 1, 0, 3, 0], [4, 0, 6, 0, 0]]
    assert peers_numba.mean_gradient(grad, ids, counts).tolist() == [[0.5, 0.5, 1.5, 1.5, 0], [2, 2, 3, 3, 0]]


def test_times_are_taken_in_turn_and_without_the_disturbed_ones() -> None:
    order: list[str] = []
    script = {
        "a": iter([(1.0, 40), (9.0, 400), (3.0, 50), (2.0, 40)]),  # about 40 switches are its own threads'
        "b": iter([(16.0, 0), (17.0, 0)]),
    }

    def measure(call):
        name = call()
        order.append(name)
        return next(script[name])

    calls = {"a": lambda: "a", "b": lambda: "b"}
    times = interleave(calls, samples=3, budget=60.0, measure=measure)
    assert order == ["a", "b", "a", "b", "a", "a"]
    assert times["b"].samples == 2  # its half of the budget was used up
    assert (times["b"].seconds, times["b"].clean) == (16.5, True)
    assert (times["a"].seconds, times["a"].low, times["a"].high) == (2, 1, 3)
    assert (times["a"].samples, times["a"].rejected, times["a"].clean) == (3, 1, True)


def test_a_slow_call_that_is_always_disturbed_counts_by_its_faster_half() -> None:
    script = iter([(4.0, 0), (5.0, 900), (7.0, 0), (6.0, 900)])
    times = interleave({"a": lambda: None}, samples=9, budget=21.0, measure=lambda call: next(script))
    # 0 and 900 switches: none is usual, so the bound lies between and two samples are too few
    assert (times["a"].low, times["a"].high, times["a"].clean) == (4, 5, False)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["pool", "--device", "abacus"], 2, "unknown device 'abacus'"),
        (["pool", "--device", "cuda"], 6, "no CUDA GPU"),
        (["pool", "--quick", "--json", "{}/file/pool.json"], 6, "pool.json: cannot be written"),
        (["pool", "--quick", "--plot", "{}/file/pool.svg"], 6, "pool.svg: cannot be written"),
        (["pool", "--pages", "7"], 2, "No such option"),
        (["pooling"], 2, "No such command"),
    ],
)
def test_errors_are_one_sentence(options: list[str], code: int, words: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    found, said = run("bench", *(option.format(tmp_path) for option in options))
    assert found == code
    assert words in said
    if not words.startswith("No such"):  # which are typer's words, with the usage
        assert said.splitlines()[-1].startswith("voxpool: ")
        assert words in said.splitlines()[-1]
