"""Two runs compared case by case, and what refuses to be compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from voxpool.errors import InputError, UsageError
from voxpool_pipelines.compare import compare_runs, render_json, render_markdown, render_text


def scores(run: Path, variant: str, name: str) -> np.ndarray:
    """Dice by case id, read without the code under test."""
    rows = {}
    for file in run.glob(f"variants/{variant}/fold*/result.json"):
        for case in json.loads(file.read_text(encoding="utf-8"))["cases"]:
            values = {key: score["dice"] for key, score in case["classes"].items()}
            rows[case["case_id"]] = np.mean(list(values.values())) if name == "mean" else values[name]
    return np.array([rows[key] for key in sorted(rows)])


def improve(run: Path, variant: str, gain: float) -> None:
    for file in run.glob(f"variants/{variant}/fold*/result.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        for index, case in enumerate(content["cases"]):
            for score in case["classes"].values():
                score["dice"] += gain * (1 + 0.1 * index + 0.01 * content["fold"])
        file.write_text(json.dumps(content))


def test_pairs_of_the_same_variant(finished_run: Path, run_copy: Path) -> None:
    improve(run_copy, "voxresnet-r8-v2-block", 0.01)
    shutil.rmtree(run_copy / "variants" / "voxresnet-r4-v1-slic")
    comparison = compare_runs(finished_run, run_copy)
    assert (comparison.cases, comparison.folds) == (6, 3)
    assert comparison.only_a == ("voxresnet-r4-v1-slic",)
    assert comparison.only_b == ()
    assert len(comparison.pairs) == 15
    assert all(pair.variant_a == pair.variant_b for pair in comparison.pairs)
    pair = next(pair for pair in comparison.pairs if pair.variant_a == "voxresnet-r8-v2-block")
    for name, score in {"mean": pair.foreground, **pair.classes}.items():
        one, other = (scores(run, "voxresnet-r8-v2-block", name) for run in (finished_run, run_copy))
        assert score.first.mean == pytest.approx(one.mean())
        assert score.second.mean == pytest.approx(other.mean())
        assert score.test.mean == pytest.approx((other - one).mean())
        assert score.test.median == pytest.approx(np.median(other - one))
        assert score.test.p == pytest.approx(stats.wilcoxon(other - one).pvalue) == pytest.approx(2 / 2**6)
        assert score.test.rank_biserial == 1
    # Holm over 15 foreground comparisons, of which 14 are equal, and over 3 classes.
    assert pair.foreground.test.p_holm == pytest.approx(15 * 2 / 2**6)
    assert [score.test.p_holm for score in pair.classes.values()] == pytest.approx([3 * 2 / 2**6] * 3)
    same = next(pair for pair in comparison.pairs if pair.variant_a == "voxresnet-r8-base")
    assert (same.foreground.test.p, same.foreground.test.mean) == (1, 0)


def test_two_variants_of_one_run(finished_run: Path) -> None:
    comparison = compare_runs(
        finished_run, finished_run, variant_a="voxresnet-r8-base", variant_b="voxresnet-r8-v3-slic"
    )
    (pair,) = comparison.pairs
    one, other = (scores(finished_run, f"voxresnet-r8-{head}", "GM") for head in ("base", "v3-slic"))
    assert pair.classes["GM"].test.mean == pytest.approx((other - one).mean())
    assert (comparison.only_a, comparison.only_b) == ((), ())


def test_one_name_counts_for_both(finished_run: Path, run_copy: Path) -> None:
    for choice in ({"variant_a": "voxresnet-r4-base"}, {"variant_b": "voxresnet-r4-base"}):
        (pair,) = compare_runs(finished_run, run_copy, **choice).pairs
        assert (pair.variant_a, pair.variant_b) == ("voxresnet-r4-base", "voxresnet-r4-base")


def test_renderings_agree(finished_run: Path) -> None:
    comparison = compare_runs(
        finished_run, finished_run, variant_a="voxresnet-r8-base", variant_b="voxresnet-r8-v3-slic"
    )
    document = json.loads(render_json(comparison))
    test = document["pairs"][0]["foreground"]["test"]
    assert test["p_holm"] == comparison.pairs[0].foreground.test.p_holm
    one, other = (scores(finished_run, f"voxresnet-r8-{head}", "mean") for head in ("base", "v3-slic"))
    for text in (render_text(comparison), render_markdown(comparison)):
        row = next(line for line in text.splitlines() if "foreground mean" in line)
        assert f"{100 * one.mean():.1f} ± {100 * one.std(ddof=1):.1f}" in row
        assert f"{100 * other.mean():.1f} ± {100 * other.std(ddof=1):.1f}" in row
        assert f"{100 * np.median(other - one):+.1f} [" in row
        assert "0.031" in row
    lines = render_text(comparison).splitlines()
    start = next(index for index, line in enumerate(lines) if "foreground mean" in line)
    assert len({len(line) for line in lines[start - 1 : start + 4]}) == 1


def test_a_value_that_does_not_exist_is_null_in_json(run_copy: Path, finished_run: Path) -> None:
    for file in run_copy.glob("variants/voxresnet-r8-base/fold*/result.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        for case in content["cases"]:
            case["classes"]["CSF"] |= {"dice": None, "hd95_mm": None, "assd_mm": None, "status": "absent_ok"}
        file.write_text(json.dumps(content))
    document = json.loads(render_json(compare_runs(finished_run, run_copy, variant_a="voxresnet-r8-base")))
    csf = document["pairs"][0]["classes"]["CSF"]
    assert csf["second"]["mean"] is None
    assert csf["test"]["p"] is None
    assert csf["test"]["n"] == 0


def test_other_cases_are_refused(finished_run: Path, run_copy: Path) -> None:
    for path in [run_copy / "folds.json", *run_copy.glob("variants/*/fold0/result.json")]:
        path.write_text(path.read_text(encoding="utf-8").replace("case04", "case99"))
    with pytest.raises(InputError, match=r"do not score the same cases \(2 cases in one only, such as case04\)"):
        compare_runs(finished_run, run_copy)


def test_other_folds_are_refused(finished_run: Path, run_copy: Path) -> None:
    for path in [run_copy / "folds.json", *run_copy.glob("variants/*/fold*/result.json")]:
        swapped = (
            path.read_text(encoding="utf-8").replace("case01", "#").replace("case02", "case01").replace("#", "case02")
        )
        path.write_text(swapped, encoding="utf-8")
    with pytest.raises(InputError, match=r"folds\.json and .*folds\.json split the cases differently"):
        compare_runs(finished_run, run_copy)


def test_the_order_of_cases_within_a_fold_does_not_matter(finished_run: Path, run_copy: Path) -> None:
    folds = json.loads((run_copy / "folds.json").read_text(encoding="utf-8"))
    (run_copy / "folds.json").write_text(
        json.dumps([{name: ids[::-1] for name, ids in fold.items()} for fold in folds])
    )
    assert len(compare_runs(finished_run, run_copy).pairs) == 16


def test_other_truth_is_refused(finished_run: Path, run_copy: Path) -> None:
    file = run_copy / "variants" / "voxresnet-r4-base" / "fold0" / "result.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cases"][0]["classes"]["CSF"]["target_volume_ml"] += 0.5
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"the target of case case01 holds .* mL of CSF"):
        compare_runs(finished_run, run_copy)


def test_other_classes_are_refused(finished_run: Path, run_copy: Path) -> None:
    for path in [run_copy / "run.json", *run_copy.glob("variants/*/fold*/result.json")]:
        path.write_text(path.read_text(encoding="utf-8").replace('"WM"', '"bone"'))
    with pytest.raises(InputError, match=r"scores CSF, GM, WM but .* scores CSF, GM, bone"):
        compare_runs(finished_run, run_copy)


def test_unfinished_variants_are_refused(finished_run: Path, run_copy: Path) -> None:
    shutil.rmtree(run_copy / "variants" / "voxresnet-r8-base" / "fold2")
    with pytest.raises(InputError, match="voxresnet-r8-base lacks fold 2; finish the run"):
        compare_runs(finished_run, run_copy)


def test_a_run_with_itself_needs_variants(finished_run: Path) -> None:
    with pytest.raises(UsageError, match="is given twice; name two variants"):
        compare_runs(finished_run, finished_run)


def test_unknown_variants_are_named_with_the_known_ones(finished_run: Path, run_copy: Path) -> None:
    with pytest.raises(UsageError, match=r"has no variant v9; it has voxresnet-r4-base, "):
        compare_runs(finished_run, run_copy, variant_a="v9")


def test_runs_without_a_common_variant(finished_run: Path, run_copy: Path) -> None:
    for folder in (run_copy / "variants").iterdir():
        if folder.name != "voxresnet-r8-base":
            shutil.rmtree(folder)
    for file in run_copy.glob("variants/voxresnet-r8-base/fold*/result.json"):
        file.write_text(file.read_text(encoding="utf-8").replace("voxresnet-r8-base", "other"))
    (run_copy / "variants" / "voxresnet-r8-base").rename(run_copy / "variants" / "other")
    with pytest.raises(UsageError, match="have no variant in common"):
        compare_runs(finished_run, run_copy)
