"""A run directory read into records, whole, unfinished and damaged."""

import json
import math
import shutil
from pathlib import Path

import pytest

from voxpool.errors import InputError
from voxpool_pipelines.results import load_run


def change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(values)
    path.write_text(json.dumps(content), encoding="utf-8")


def result_file(run: Path, variant: str = "voxresnet-r8-v3-slic", fold: int = 1) -> Path:
    return run / "variants" / variant / f"fold{fold}" / "result.json"


def test_everything_is_read(finished_run: Path) -> None:
    run = load_run(finished_run)
    assert (run.name, run.seed, run.device, run.status) == ("Shells & <pockets>", 7, "cpu", "done")
    assert run.complete
    assert run.class_names == ("CSF", "GM", "WM")
    assert run.config["learning_rate"] == 0.001
    assert [split.val for split in run.splits] == [("case01", "case04"), ("case02", "case05"), ("case03", "case06")]
    assert run.held_out == [
        (0, "case01"), (0, "case04"), (1, "case02"), (1, "case05"), (2, "case03"), (2, "case06")
    ]  # fmt: skip
    found = run.find(net="voxresnet", reduction=8, head="v3", segments="slic")
    assert found is not None
    assert [case.case_id for case in found.cases] == [f"case0{number}" for number in range(1, 7)]
    assert found.folds[1].n_segments == 300
    stored = json.loads(result_file(finished_run).read_text(encoding="utf-8"))["cases"][0]
    case = next(case for case in found.cases if case.case_id == stored["case_id"])
    assert case.seconds == stored["seconds"]
    assert case.oracle_dice == stored["oracle_dice"]
    for name, score in case.classes.items():
        assert vars(score) == stored["classes"][name]
    dices = [score["dice"] for score in stored["classes"].values()]
    assert case.dice_foreground == pytest.approx(sum(dices) / 3)
    assert case.dice_with_background == pytest.approx((sum(dices) + stored["dice_background"]) / 4)
    assert case.oracle_foreground == pytest.approx(sum(stored["oracle_dice"].values()) / 3)
    assert run.prediction_path("voxresnet-r8-v3-slic", case).is_file()


def test_variants_come_in_the_order_of_the_table(run_copy: Path) -> None:
    ids = [result.variant.id for result in load_run(run_copy).variants]
    assert ids[:8] == [
        "voxresnet-r4-base",
        "voxresnet-r4-control",
        "voxresnet-r4-v1-block",
        "voxresnet-r4-v1-slic",
        "voxresnet-r4-v2-block",
        "voxresnet-r4-v2-slic",
        "voxresnet-r4-v3-block",
        "voxresnet-r4-v3-slic",
    ]
    assert [variant_id.replace("-r8-", "-r4-") for variant_id in ids[8:]] == ids[:8]


def test_references(finished_run: Path) -> None:
    run = load_run(finished_run)
    v3 = run.find(id="voxresnet-r8-v3-slic")
    assert v3 is not None
    base, control = run.reference(v3.variant, "base"), run.reference(v3.variant, "control")
    assert base is not None
    assert control is not None
    assert (base.variant.id, control.variant.id) == ("voxresnet-r8-base", "voxresnet-r8-control")
    assert run.reference(base.variant, "base") is None


def test_null_scores_are_nan(run_copy: Path) -> None:
    file = result_file(run_copy)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cases"][0]["classes"]["CSF"] |= {
        "dice": None, "hd95_mm": None, "assd_mm": None, "status": "absent_ok"
    }  # fmt: skip
    content["cases"][0]["oracle_dice"]["CSF"] = None
    content["cases"][0]["dice_background"] = None
    file.write_text(json.dumps(content))
    found = load_run(run_copy).find(id="voxresnet-r8-v3-slic")
    assert found is not None
    case = next(case for case in found.cases if case.case_id == content["cases"][0]["case_id"])
    assert math.isnan(case.classes["CSF"].dice)
    assert math.isnan(case.dice_background)
    two = [case.classes[name].dice for name in ("GM", "WM")]
    assert case.dice_foreground == case.dice_with_background == pytest.approx(sum(two) / 2)
    assert case.oracle_foreground == pytest.approx((0.95 + 0.96) / 2)


def test_an_unfinished_run(run_copy: Path) -> None:
    shutil.rmtree(result_file(run_copy, fold=2).parent)
    shutil.rmtree(run_copy / "variants" / "voxresnet-r4-v2-slic")
    (run_copy / "variants" / "voxresnet-r4-v2-slic" / "fold0").mkdir(parents=True)
    change(run_copy / "run.json", status="running")
    run = load_run(run_copy)
    assert not run.complete
    partial = run.find(id="voxresnet-r8-v3-slic")
    assert partial is not None
    assert (partial.complete, partial.missing_folds) == (False, (2,))
    assert [case.case_id for case in partial.cases] == ["case01", "case02", "case04", "case05"]
    assert run.find(id="voxresnet-r4-v2-slic") is None


def test_a_run_restricted_to_some_folds_is_complete(run_copy: Path) -> None:
    for folder in run_copy.glob("variants/*/fold[02]"):
        shutil.rmtree(folder)
    change(run_copy / "run.json", config={"only_folds": [1]})
    run = load_run(run_copy)
    assert run.complete
    assert run.asked_folds == (1,)
    assert run.held_out == [(1, "case02"), (1, "case05")]


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run directory"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"run\.json: no such file; give a folder that 'voxpool crossval"):
        load_run(tmp_path)


def test_nothing_done_yet(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "variants")
    with pytest.raises(InputError, match="no fold of any variant is done yet; start 'voxpool crossval'"):
        load_run(run_copy)


@pytest.mark.parametrize("name", ["run.json", "folds.json", "dataset.json"])
def test_a_missing_file_is_named(run_copy: Path, name: str) -> None:
    (run_copy / name).unlink()
    with pytest.raises(InputError, match=f"{name}: no such file"):
        load_run(run_copy)


@pytest.mark.parametrize("name", ["run.json", "folds.json", "dataset.json"])
def test_a_file_that_ends_early_is_named(run_copy: Path, name: str) -> None:
    text = (run_copy / name).read_text(encoding="utf-8")
    (run_copy / name).write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=rf"{name}: not whole JSON \(.+, line \d+\); restore it"):
        load_run(run_copy)


def test_damaged_results(run_copy: Path) -> None:
    file = result_file(run_copy)
    whole = file.read_text(encoding="utf-8")

    file.write_text(whole[:300])
    with pytest.raises(InputError, match=r"fold1/result\.json: not whole JSON .*remove the file and start the run"):
        load_run(run_copy)

    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="bytes that are not UTF-8 text"):
        load_run(run_copy)

    content = json.loads(whole)
    content["cases"][1]["classes"]["GM"]["dice"] = "high"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"cases\.1\.classes\.GM\.dice: .*valid number"):
        load_run(run_copy)

    content = json.loads(whole)
    del content["parameters"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"result\.json: parameters: "):
        load_run(run_copy)


def test_results_that_contradict_the_folds(run_copy: Path) -> None:
    shutil.copy(result_file(run_copy, fold=0), result_file(run_copy, fold=1))
    with pytest.raises(InputError, match=r"not the ones that fold 1 of folds\.json holds out \(differing: case01"):
        load_run(run_copy)


def test_a_case_scored_twice(run_copy: Path) -> None:
    file = result_file(run_copy)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cases"].append(content["cases"][0])
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not the ones that fold 1"):
        load_run(run_copy)


def test_results_of_another_variant(run_copy: Path) -> None:
    shutil.copy(result_file(run_copy, "voxresnet-r8-v3-block"), result_file(run_copy))
    with pytest.raises(InputError, match="a folder holds one variant"):
        load_run(run_copy)


def test_results_with_other_classes(run_copy: Path) -> None:
    file = result_file(run_copy)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cases"][0]["classes"]["bone"] = content["cases"][0]["classes"].pop("WM")
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is scored on \['CSF', 'GM', 'bone'\]"):
        load_run(run_copy)


def test_a_newer_format_is_refused(run_copy: Path) -> None:
    change(run_copy / "run.json", schema=2)
    with pytest.raises(InputError, match="format 2, this version reads 1"):
        load_run(run_copy)
