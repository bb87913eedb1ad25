"""The report's files, checked against the run's own numbers and pictures."""

import csv
import io
import json
import math
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from voxpool.errors import InputError
from voxpool_pipelines.report import ReportPaths, write_report
from voxpool_pipelines.report.charts import linear_axis, log_axis
from voxpool_pipelines.report.markdown import markdown_table
from voxpool_pipelines.report.markup import Markup, tag
from voxpool_pipelines.report.png import grey_png, palette_png
from voxpool_pipelines.report.words import count, number, p_value, percent, signed

CLASSES = ("CSF", "GM", "WM")
VOID = {"meta", "link", "img", "input", "line", "circle", "rect", "path", "br"}


class Page(HTMLParser):
    """Elements with attributes and the text inside them; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[int, str] = {}
        self.open: list[tuple[str, int]] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID or (self.get_starttag_text().endswith("/>") is False and name not in VOID):
            self.open.append((name, len(self.elements) - 1))

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.faults.append(f"<{name}/> stays open in HTML")

    def handle_endtag(self, name: str) -> None:
        if name in VOID:
            return
        if not self.open or self.open[-1][0] != name:
            self.faults.append(f"</{name}> at {self.getpos()} closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, index in self.open:
            self.text[index] = self.text.get(index, "") + data

    def find(self, name: str, **attributes: str) -> list[tuple[int, dict[str, str | None]]]:
        return [
            (index, found)
            for index, (kind, found) in enumerate(self.elements)
            if kind == name and all(found.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]


@pytest.fixture(scope="module")
def report(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(finished_run, run)
    return write_report(run)


@pytest.fixture(scope="module")
def document(report: ReportPaths) -> dict:
    return json.loads(report.json.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(report: ReportPaths) -> Page:
    return Page(report.html.read_text(encoding="utf-8"))


def rows(run: Path, variant: str) -> list[dict]:
    """The cases of a variant sorted by id, read without the code under test."""
    found = []
    for file in run.glob(f"variants/{variant}/fold*/result.json"):
        found += json.loads(file.read_text(encoding="utf-8"))["cases"]
    return sorted(found, key=lambda case: case["case_id"])


def foreground(run: Path, variant: str) -> np.ndarray:
    return np.array([np.mean([score["dice"] for score in case["classes"].values()]) for case in rows(run, variant)])


def entry(document: dict, variant: str) -> dict:
    return next(each for each in document["variants"] if each["id"] == variant)


def test_report_json_has_the_promised_keys(document: dict) -> None:
    promised = {
        "name", "net", "reduction", "head", "segments", "dice", "dice_foreground", "dice_with_background", "std",
        "hd95_mm", "volume_error_ml", "oracle_dice", "num_segments", "parameters", "seconds_per_volume", "p_vs_base",
        "difference_vs_base", "difference_vs_control", "n_cases", "counts",
    }  # fmt: skip
    assert len(document["variants"]) == 16
    for each in document["variants"]:
        assert promised <= set(each)
        assert each["n_cases"] == 6
    assert document["complete"] is True
    assert document["incomplete"] == []
    assert document["data"]["convention"] == "pockets count as CSF"


@pytest.mark.parametrize("variant", ["voxresnet-r4-base", "voxresnet-r8-v1-block", "voxresnet-r8-v3-slic"])
def test_report_json_recomputed(report: ReportPaths, document: dict, variant: str) -> None:
    run = report.json.parent
    cases, found = rows(run, variant), entry(document, variant)
    mean = foreground(run, variant)
    for name in CLASSES:
        scores = [case["classes"][name] for case in cases]
        assert found["dice"][name] == pytest.approx(np.mean([score["dice"] for score in scores]))
        assert found["hd95_mm"][name] == pytest.approx(np.mean([score["hd95_mm"] for score in scores]))
        differences = np.array([score["volume_ml"] - score["target_volume_ml"] for score in scores])
        assert found["volume_error_ml"][name] == pytest.approx(np.abs(differences).mean())
        assert found["volume_bias_ml"][name] == pytest.approx(differences.mean())
    assert found["dice_foreground"] == pytest.approx(mean.mean())
    assert found["std"] == pytest.approx(mean.std(ddof=1))
    background = [case["dice_background"] for case in cases]
    assert found["dice_with_background"] == pytest.approx(np.mean((3 * mean + background) / 4))
    assert found["seconds_per_volume"] == pytest.approx(np.mean([case["seconds"] for case in cases]))
    if "base" in variant:
        assert found["oracle_dice"] is found["num_segments"] is found["difference_vs_base"] is None
    else:
        assert found["oracle_dice"] == pytest.approx(cases[0]["oracle_dice"])
        assert found["num_segments"] == 296


def test_the_missed_structure_counts(document: dict, report: ReportPaths) -> None:
    found = entry(document, "voxresnet-r8-v1-block")
    assert found["counts"]["CSF"] == {"ok": 5, "missed": 1, "false_positive": 0, "absent_ok": 0}
    diagonal = math.sqrt(30.0**2 + 26.0**2 + 21.6**2)
    distances = [case["classes"]["CSF"]["hd95_mm"] for case in rows(report.json.parent, "voxresnet-r8-v1-block")]
    assert max(distances) == pytest.approx(diagonal)
    assert found["hd95_mm"]["CSF"] == pytest.approx(np.mean(distances))
    assert found["hd95_mm_without_missed"]["CSF"] == pytest.approx(np.mean(sorted(distances)[:5]))


def test_tests_against_base_and_control(report: ReportPaths, document: dict) -> None:
    run = report.json.parent
    for reference, key in (("base", "difference_vs_base"), ("control", "difference_vs_control")):
        raw = {}
        for each in document["variants"]:
            if each["head"] in ("base", reference):
                assert each[key] is None
                continue
            difference = foreground(run, each["id"]) - foreground(run, f"voxresnet-r{each['reduction']}-{reference}")
            found = each[key]
            assert found["reference"] == f"voxresnet-r{each['reduction']}-{reference}"
            assert found["mean"] == pytest.approx(difference.mean())
            assert found["median"] == pytest.approx(np.median(difference))
            assert found["ci_low"] <= found["median"] <= found["ci_high"]
            raw[each["id"]] = stats.wilcoxon(difference, zero_method="pratt").pvalue
            assert found["p"] == pytest.approx(raw[each["id"]])
        assert len(raw) == (14 if reference == "base" else 12)
        running = 0.0
        for rank, (variant, p) in enumerate(sorted(raw.items(), key=lambda item: item[1])):
            running = max(running, min(1.0, p * (len(raw) - rank)))
            assert entry(document, variant)[key]["p_holm"] == pytest.approx(running)
            if reference == "base":
                assert entry(document, variant)["p_vs_base"] == pytest.approx(running)


def test_cases_csv_has_each_case_once_per_variant(report: ReportPaths) -> None:
    table = list(csv.DictReader(io.StringIO(report.csv.read_text(encoding="utf-8"))))
    folds = json.loads((report.csv.parent / "folds.json").read_text(encoding="utf-8"))
    held_out = {case_id: fold for fold, split in enumerate(folds) for case_id in split["val"]}
    seen = [(row["variant"], row["case_id"]) for row in table]
    assert len(seen) == len(set(seen)) == 16 * 6
    for row in table:
        assert int(row["fold"]) == held_out[row["case_id"]]
    for variant in {row["variant"] for row in table}:
        assert [row["case_id"] for row in table if row["variant"] == variant] == sorted(held_out)
    row = next(row for row in table if row["variant"] == "voxresnet-r8-v3-slic" and row["case_id"] == "case05")
    case = rows(report.csv.parent, "voxresnet-r8-v3-slic")[4]
    assert row["GM_dice"] == f"{case['classes']['GM']['dice']:.6f}"
    assert row["WM_hd95_mm"] == f"{case['classes']['WM']['hd95_mm']:.6f}"
    assert row["CSF_status"] == "ok"
    assert row["CSF_oracle_dice"] == "0.940000"
    base = next(row for row in table if row["variant"] == "voxresnet-r8-base")
    assert (base["segments"], base["CSF_oracle_dice"], base["num_segments"]) == ("", "", "")


def test_cases_csv_does_not_depend_on_clocks(report: ReportPaths, run_copy: Path) -> None:
    for file in run_copy.glob("variants/*/fold*/result.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["train_seconds"] *= 3
        for case in content["cases"]:
            case["seconds"] *= 1.7
        file.write_text(json.dumps(content))
    paths = write_report(run_copy)
    assert paths.csv.read_bytes() == report.csv.read_bytes()
    assert paths.json.read_bytes() != report.json.read_bytes()


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_else(report: ReportPaths) -> None:
    folder = report.html.parent
    files = (report.json, report.csv, report.markdown, report.html)
    before, names = [file.read_bytes() for file in files], sorted(path.name for path in folder.iterdir())
    write_report(folder)
    assert [file.read_bytes() for file in files] == before
    assert sorted(path.name for path in folder.iterdir()) == names


def test_the_page_is_whole_and_needs_nothing_else(report: ReportPaths, page: Page) -> None:
    assert page.faults == []
    assert page.open == []
    assert report.html.stat().st_size < 5_000_000
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            address = attributes.get(key) or ""
            assert address.startswith(("data:", "#")) or address == "", (name, key, address)
    assert not page.find("script", src="")
    assert "@import" not in report.html.read_text(encoding="utf-8")
    assert not re.search(r"url\(", report.html.read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.find("a"):
        assert (attributes["href"] or "").removeprefix("#") in ids


def test_names_are_escaped(report: ReportPaths, page: Page) -> None:
    ((heading, _),) = page.find("h1")
    assert page.text[heading] == "Shells & <pockets>"
    assert "<pockets>" not in report.html.read_text(encoding="utf-8")
    assert "<pockets>" not in report.markdown.read_text(encoding="utf-8")


def table_rows(page: Page, caption: str) -> list[list[str]]:
    """The text of every cell of the table with a caption."""
    start = next(index for index, _ in page.find("caption") if page.text[index] == caption)
    found: list[list[str]] = []
    for index in range(start, len(page.elements)):
        name, attributes = page.elements[index]
        if name == "table":
            break
        if name == "tr":
            found.append([])
        elif name in ("td", "th"):
            found[-1] += [page.text.get(index, "")] * int(attributes.get("colspan") or 1)
    return found


def test_table_1_shows_the_runs_values(report: ReportPaths, page: Page) -> None:
    run = report.html.parent
    groups, kinds, *body = table_rows(page, "Dice, foreground mean (%)")
    assert groups == ["Head", *["VoxResNet /4"] * 2, *["VoxResNet /8"] * 2]
    assert kinds == ["BLOCK", "SLIC"] * 2
    assert [row[0] for row in body] == ["Base network", "Control", "V1", "V2", "V3", "Supervoxel oracle"]
    for head, row in zip(("base", "control", "v1", "v2", "v3"), body, strict=False):
        for cell, reduction, kind in zip(row[1:], (4, 4, 8, 8), ("block", "slic") * 2, strict=True):
            variant = f"voxresnet-r{reduction}-{head}" + ("" if head in ("base", "control") else f"-{kind}")
            dices = 100 * foreground(run, variant)
            assert cell.startswith(f"{dices.mean():.1f} ± {dices.std(ddof=1):.1f}")
            if head != "base":
                difference = np.median(dices - 100 * foreground(run, f"voxresnet-r{reduction}-base"))
                assert cell.endswith(signed(difference))
    assert body[-1][1:] == ["72.0", "95.0"] * 2


def test_the_best_of_each_network_is_bold(page: Page) -> None:
    best = [index for index, attributes in page.find("b", class_="value")]
    # The first table holds the first bold values: V3 SLIC of both reductions.
    _, _, *body = table_rows(page, "Dice, foreground mean (%)")
    assert [page.text[index] for index in best[:2]] == [body[4][2].split(" ")[0], body[4][4].split(" ")[0]]
    # Distances are better when small, and theirs is the last of the tables.
    _, _, *distances = table_rows(page, "HD95, foreground mean (mm)")
    shown = np.array([[float(cell.split(" ")[0]) for cell in row[1:]] for row in distances])
    assert {float(page.text[index]) for index in best[-2:]} == {shown[:, :2].min(), shown[:, 2:].min()}


def test_every_variant_and_case_is_in_the_tables(page: Page) -> None:
    head, *body = table_rows(page, "All variants, mean ± SD over the cases")
    assert len(body) == 16
    assert all(len(row) == len(head) for row in body)
    head, *cases = table_rows(page, "Foreground Dice of every case, in percent")
    assert [row[0] for row in cases] == ["case01", "case04", "case02", "case05", "case03", "case06"]
    assert len(head) == 18


def test_every_case_is_a_dot_at_its_value(report: ReportPaths, page: Page) -> None:
    dots = [index for index, attributes in page.find("circle") if "dot" in (attributes.get("class") or "")]
    assert len(dots) == 4 * 16 * 6
    places, values = [], []
    for index in dots[: 16 * 6]:
        # The title of a dot follows it.
        values.append(float(re.search(r": ([\d.]+) %", page.text[index + 1]).group(1)))  # type: ignore[union-attr]
        places.append(float(page.elements[index][1]["cx"] or "nan"))
    wanted = np.concatenate([100 * foreground(report.html.parent, name) for name in variants_in_order()])
    assert values == pytest.approx(wanted.tolist(), abs=0.006)
    line = stats.linregress(values, places)
    assert line.rvalue > 0.99999


def variants_in_order() -> list[str]:
    heads = ["base", "control"] + [f"{head}-{kind}" for head in ("v1", "v2", "v3") for kind in ("block", "slic")]
    return [f"voxresnet-r{reduction}-{head}" for reduction in (4, 8) for head in heads]


def slice_data(page: Page) -> dict:
    ((index, _),) = page.find("script", id="slice-data")
    return json.loads(page.text[index])


def decode(content: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(content)))


def ras(path: Path) -> np.ndarray:
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def test_slices_show_the_right_voxels_on_the_right_side(report: ReportPaths, page: Page) -> None:
    run = report.html.parent
    files = {case["id"]: case for case in json.loads((run / "dataset.json").read_text(encoding="utf-8"))["cases"]}
    sets = slice_data(page)["sets"]
    dices = foreground(run, "voxresnet-r4-base")
    for place, shown in enumerate(sets):
        fold = place // 2
        members = [index for index in range(6) if index % 3 == fold]
        members.sort(key=lambda index: dices[index])
        # Two cases per fold: the upper one is the median, the other the lowest.
        assert shown["case"] == f"case0{members[1 - place % 2] + 1}"
        assert len(shown["slices"]) >= 8
        truth = ras(Path(files[shown["case"]]["labels"]))
        image = ras(Path(files[shown["case"]]["images"][0]))
        variants = ("voxresnet-r4-base", "voxresnet-r4-v3-slic")
        predictions = [
            ras(run / "variants" / name / f"fold{fold}" / "predictions" / f"{shown['case']}.nii.gz")
            for name in variants
        ]
        # The first axis is 1.5 mm per voxel, and 20 by 26 voxels are seen.
        assert shown["aspect"] == pytest.approx(20 * 1.5 / 26, abs=1e-3)
        for each in shown["slices"]:
            at = each["number"] - 1
            # In radiological convention the first column is the patient's right, the first row the front.
            seen = [volume[::-1, ::-1, at].T for volume in (truth, *predictions)]
            for content, labels in zip(each["classes"], seen, strict=True):
                assert np.array_equal(np.asarray(decode(content)), labels)
            for content, labels in zip(each["errors"], seen[1:], strict=True):
                assert np.array_equal(np.asarray(decode(content)), labels != seen[0])
            grey = np.asarray(decode(each["image"])).astype(float)
            assert np.corrcoef(grey.ravel(), image[::-1, ::-1, at].T.ravel())[0, 1] > 0.99
    middle = np.asarray(decode(sets[0]["slices"][len(sets[0]["slices"]) // 2]["classes"][0]))
    # Inside the shells there is CSF in the right front pocket alone, so left of the middle and above it.
    rows_inside, columns_inside = np.nonzero(middle[5:20, 6:14] == 1)
    assert len(rows_inside) >= 6
    assert (rows_inside + 5 < 13).all()
    assert (columns_inside + 6 < 10).all()


def test_overlays_are_transparent_outside_the_classes(page: Page) -> None:
    overlay = decode(slice_data(page)["sets"][0]["slices"][3]["classes"][0]).convert("RGBA")
    pixels = np.asarray(overlay)
    labels = np.asarray(decode(slice_data(page)["sets"][0]["slices"][3]["classes"][0]))
    assert (pixels[labels == 0, 3] == 0).all()
    assert (pixels[labels > 0, 3] == 255).all()
    assert len({tuple(pixel) for pixel in pixels[labels > 0]}) == 3


def test_png_files_are_read_back() -> None:
    random = np.random.default_rng(0)
    for image in (random.integers(0, 256, (13, 7)), np.add.outer(np.arange(40), np.arange(30)), np.zeros((3, 5))):
        decoded = Image.open(io.BytesIO(grey_png(image.astype(np.uint8))))
        assert decoded.mode == "L"
        assert np.array_equal(np.asarray(decoded), image)
    indices = random.integers(0, 3, (9, 11)).astype(np.uint8)
    decoded = Image.open(io.BytesIO(palette_png(indices, [(255, 0, 0), (0, 128, 255)]))).convert("RGBA")
    colours = np.array([[0, 0, 0, 0], [255, 0, 0, 255], [0, 128, 255, 255]])
    assert np.array_equal(np.asarray(decoded), colours[indices])


def test_pictures_that_are_gone_are_named(run_copy: Path, tmp_path: Path) -> None:
    dataset = json.loads((run_copy / "dataset.json").read_text(encoding="utf-8"))
    moved = tmp_path / "moved"
    shutil.copytree(Path(dataset["cases"][0]["images"][0]).parent, moved)
    for case in dataset["cases"]:
        for key in ("images", "labels"):
            case[key] = json.loads(json.dumps(case[key]).replace(str(Path(case["labels"]).parent), str(moved)))
    (run_copy / "dataset.json").write_text(json.dumps(dataset))
    (moved / "case02_t1.nii.gz").unlink()
    (moved / "case05_labels.nii.gz").write_bytes(b"not an image")
    (run_copy / "variants/voxresnet-r4-v3-slic/fold2/predictions/case03.nii.gz").unlink()
    text = write_report(run_copy).html.read_text(encoding="utf-8")
    found = {shown["case"] for shown in slice_data(Page(text))["sets"]}
    assert found == {"case01", "case04", "case06"}
    note = re.search(r"Left out, because[^<]*", text)
    assert note
    assert all(case_id in note.group() for case_id in ("case02", "case03", "case05"))
    assert str(moved) not in text


def test_an_unfinished_run_says_so(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "variants" / "voxresnet-r8-v3-slic" / "fold2")
    content = json.loads((run_copy / "run.json").read_text(encoding="utf-8"))
    (run_copy / "run.json").write_text(json.dumps({**content, "status": "running"}))
    paths = write_report(run_copy)
    document, page = json.loads(paths.json.read_text(encoding="utf-8")), Page(paths.html.read_text(encoding="utf-8"))
    assert document["complete"] is False
    assert document["incomplete"] == [{"id": "voxresnet-r8-v3-slic", "missing_folds": [2]}]
    found = entry(document, "voxresnet-r8-v3-slic")
    assert (found["complete"], found["n_cases"], found["p_vs_base"]) == (False, 4, None)
    # Compared over the four cases that it has, but not part of the family of tests.
    pair = [foreground(run_copy, f"voxresnet-r8-{name}") for name in ("v3-slic", "base")]
    assert found["difference_vs_base"]["n"] == 4
    base = [pair[1][index] for index in (0, 1, 3, 4)]
    assert found["difference_vs_base"]["mean"] == pytest.approx((pair[0] - base).mean())
    raw = entry(document, "voxresnet-r4-v3-slic")["difference_vs_base"]
    assert raw["p_holm"] == pytest.approx(min(1, raw["p"] * 13))
    ((warning, _),) = page.find("p", class_="warning")
    assert "47 of 48 folds" in page.text[warning]
    _, _, *body = table_rows(page, "Dice, foreground mean (%)")
    assert "†" in body[4][4]
    # Means over different cases have no best: each of the six measures has one for the other reduction alone.
    assert len(page.find("b", class_="value")) == 6
    assert "**This run is not finished.**" in paths.markdown.read_text(encoding="utf-8")


def test_a_run_of_bases_alone(run_copy: Path) -> None:
    for folder in (run_copy / "variants").iterdir():
        if not folder.name.endswith("-base"):
            shutil.rmtree(folder)
    paths = write_report(run_copy)
    page = Page(paths.html.read_text(encoding="utf-8"))
    assert page.faults == []
    assert "nothing to compare" in paths.markdown.read_text(encoding="utf-8")
    document = json.loads(paths.json.read_text(encoding="utf-8"))
    assert [each["p_vs_base"] for each in document["variants"]] == [None, None]
    # Image and truth, and the better base.
    assert len(slice_data(page)["sets"][0]["slices"][0]["classes"]) == 2


def test_a_network_without_reduction_stands_beside_the_others(run_copy: Path) -> None:
    for folder in list((run_copy / "variants").iterdir()):
        if folder.name in ("voxresnet-r8-base", "voxresnet-r8-v3-slic"):
            new = folder.with_name(folder.name.replace("voxresnet-r8", "segresnet"))
            shutil.copytree(folder, new)
            for file in new.glob("fold*/result.json"):
                content = json.loads(file.read_text(encoding="utf-8"))
                content["variant"] |= {"id": new.name, "net": "segresnet", "reduction": None}
                file.write_text(json.dumps(content))
    page = Page(write_report(run_copy).html.read_text(encoding="utf-8"))
    groups, kinds, *body = table_rows(page, "Dice, foreground mean (%)")
    assert groups[-1] == "SegResNet"
    assert kinds == ["BLOCK", "SLIC"] * 2 + ["SLIC"]
    assert [row[-1] for row in body][2:4] == ["–", "–"]
    assert body[0][-1] == body[0][-2]


def test_markdown_holds_the_table_too(report: ReportPaths) -> None:
    text = report.markdown.read_text(encoding="utf-8")
    assert text.startswith("# Shells & &lt;pockets>")
    dices = 100 * foreground(report.markdown.parent, "voxresnet-r8-v3-slic")
    row = next(line for line in text.splitlines() if line.startswith("| V3 |"))
    assert f"**{dices.mean():.1f} ± {dices.std(ddof=1):.1f}**" in row
    for line in (part for part in text.splitlines() if part.startswith("| V")):
        assert line.endswith(" |")
    for heading in ("## Paired comparison", "## Metrics and tests", "## Limitations", "### Options"):
        assert heading in text
    assert "n = 6 limits power: the smallest two-sided p of 6 pairs is 0.031, 0.44 after Holm" in text
    assert "no difference of this run can be significant" in text
    assert "pockets count as CSF" in text


def test_markdown_cells_cannot_break_out() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]).splitlines()[-1] == "| x\\|y | 1 2 |"


def test_a_folder_without_a_run_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_markup_escapes_text_and_attributes() -> None:
    assert tag("p", 'a < b & "c"') == "<p>a &lt; b &amp; &quot;c&quot;</p>"
    assert tag("p", Markup("<b>x</b>"), class_='a"b', hidden=True, title=None) == (
        '<p class="a&quot;b" hidden><b>x</b></p>'
    )
    assert tag("td", "") == "<td></td>"
    assert tag("img", alt="") == '<img alt=""/>'


@pytest.mark.parametrize("values", [(0.713, 0.722), (86.2, 97.9), (-3.0, 12.0), (5.0, 5.0), (0.0, 1e5)])
def test_linear_axes_have_round_ticks_around_the_values(values: tuple[float, float]) -> None:
    axis = linear_axis(values, 10, 110)
    assert axis.ticks[0] <= values[0] <= values[1] <= axis.ticks[-1]
    assert 2 <= len(axis.ticks) <= 12
    assert (axis(axis.ticks[0]), axis(axis.ticks[-1])) == (10, 110)
    steps = np.diff(axis.ticks)
    assert steps == pytest.approx(steps[0])
    assert f"{steps[0]:.1e}"[0] in "125"


def test_logarithmic_axis() -> None:
    axis = log_axis([0.9, 31.0], 0, 100)
    assert axis.ticks == (1, 2, 5, 10, 20)
    assert axis(10) - axis(1) == pytest.approx(axis(20) - axis(2))
    assert 0 < axis(0.9) < axis(31) < 100


def test_numbers_for_readers() -> None:
    assert percent(0.91236) == "91.2"
    assert percent(math.nan) == number(None) == "–"
    assert (signed(1.26), signed(-0.04), signed(-2.0)) == ("+1.3", "±0.0", "−2.0")
    assert (p_value(0.0004), p_value(0.0312), p_value(math.nan)) == ("< 0.001", "0.031", "–")
    assert count(1234567.2) == "1\u202f234\u202f567"
