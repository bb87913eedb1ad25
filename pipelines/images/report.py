"""The report of a run of `voxpool train2d`: `report.html`, `report.md`, and `images.csv` with a line per image."""

import csv
import io
import math
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from voxpool.errors import InputError
from voxpool.io import write_text
from voxpool_pipelines.images.config import BASE, SUPERPIXELS, ImagesConfig, variants
from voxpool_pipelines.images.pictures import gallery
from voxpool_pipelines.images.published import PUBLISHED
from voxpool_pipelines.report.markup import Markup, join, table, tag
from voxpool_pipelines.run_folder import read_json
from voxpool_pipelines.statistics import PairedTest, adjust, paired_test

Rows = list[list[str]]


def write_images_report(run: Path) -> Path:
    """Write the report of a run, finished or not, into its folder.

    Args:
        run: What `voxpool train2d --out` wrote.

    Returns:
        The HTML file.

    Raises:
        InputError: If the folder holds no run of networks for images, or nothing is done yet.
    """
    about = read_json(run / "run.json")
    if about.get("kind") != "images":
        raise InputError(f"{run.name} is no run of train2d; give its folder, or use `voxpool report`")
    wanted = variants(ImagesConfig(**about["config"]))
    places = [run / "variants" / variant.id / "result.json" for variant in wanted]
    results = [read_json(path) for path in places if path.exists()]
    if not results:
        raise InputError(f"{run.name} has no finished network yet; give the command of the run again")
    report = _Report(run, about, results, len(wanted))
    write_text(run / "images.csv", report.csv())
    write_text(run / "report.md", report.markdown())
    write_text(run / "report.html", report.html())
    return run / "report.html"


class _Report:
    """What the three files say, made once."""

    def __init__(self, run: Path, about: dict[str, Any], results: list[dict[str, Any]], wanted: int) -> None:
        self.run, self.about, self.results, self.wanted = run, about, results, wanted
        self.names = [result["variant"]["id"] for result in results]
        self.pairs = _pairs(results)

    def classes(self) -> tuple[list[str], Rows]:
        head = ["class", *self.names]
        rows = [
            [name, *(_percent(result["classes"][name]["iou"]) for result in self.results)]
            for name in self.about["data"]["classes"]
        ]
        for title, key in (
            ("mean IoU", "mean_iou"),
            ("mean Dice (F1)", "mean_dice"),
            ("class average", "mean_accuracy"),
            ("global accuracy", "pixel_accuracy"),
        ):
            rows.append([title, *(_percent(result[key]) for result in self.results)])
        return head, rows

    def paired(self) -> tuple[list[str], Rows]:
        head = ["network", "without", "with", "difference", "per image", "images better / worse", "p (Holm)"]
        rows = []
        for net, without, with_, test, better, worse in self.pairs:
            interval = f"{_points(test.median)} [{_points(test.ci_low)}, {_points(test.ci_high)}]"
            rows.append(
                [
                    net,
                    _percent(without),
                    _percent(with_),
                    _points(with_ - without),
                    interval,
                    f"{better} / {worse}",
                    _p(test.p_holm),
                ]
            )
        return head, rows

    def cost(self) -> tuple[list[str], Rows]:
        head = ["network", "weights", "iterations", "training", "ms per image"]
        rows = [
            [
                result["variant"]["id"],
                f"{result['parameters']:,}",
                str(result["iterations"]),
                f"{result['train_seconds'] / 60:.1f} min",
                f"{result['milliseconds']:.0f}",
            ]
            for result in self.results
        ]
        return head, rows

    def cityscapes(self) -> tuple[list[str], Rows] | None:
        scored = [result for result in self.results if result.get("cityscapes")]
        if not scored:
            return None
        head = ["network", "class IoU", "category IoU", "class iIoU", "category iIoU"]
        keys = ("class_iou", "category_iou", "class_iiou", "category_iiou")
        rows = [
            [result["variant"]["id"], *(_percent(_mean(result["cityscapes"][key].values())) for key in keys)]
            for result in scored
        ]
        return head, rows

    def findings(self) -> list[str]:
        best = max(self.results, key=lambda result: result["mean_iou"])
        images = self.about["data"]["images"]
        said = [f"Best: {best['variant']['id']}, mean IoU {_percent(best['mean_iou'])} % on {images['val']} images."]
        for net, without, with_, test, better, worse in self.pairs:
            said.append(
                f"{net}: superpixels change the mean IoU by {_points(with_ - without)} points; with them {better}"
                f" images are better, {worse} worse (p {_p(test.p_holm)})."
            )
        if not self.pairs:
            said.append("No network was trained both with superpixels and without.")
        return said

    def facts(self) -> list[tuple[str, str]]:
        data, config = self.about["data"], self.about["config"]
        sizes = ", ".join(f"{count} for {name}" for name, count in data["images"].items())
        return [
            ("Data", f"{data['name']} ({data['layout']}): {sizes}"),
            ("Device", self.about["device"]),
            ("Versions", ", ".join(f"{name} {number}" for name, number in self.about["versions"].items())),
            ("Crop", " x ".join(map(str, self.results[0]["crop"]))),
            *((name.replace("_", " "), _plain(value)) for name, value in config.items() if value is not None),
        ]

    def csv(self) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "image", "mean_iou", "pixel_accuracy"])
        for result in self.results:
            for row in result["images"]:
                numbers = ("" if row[key] is None else f"{row[key]:.6f}" for key in ("mean_iou", "pixel_accuracy"))
                writer.writerow([result["variant"]["id"], row["id"], *numbers])
        return file.getvalue()

    def markdown(self) -> str:
        parts = [f"# {self.about['data']['name']}: networks for images", *(f"* {each}" for each in self.findings())]
        sections = [("IoU per class, in percent", self.classes()), ("With superpixels and without", self.paired())]
        if cityscapes := self.cityscapes():
            sections.append(("Cityscapes' scores", cityscapes))
        sections.append(("Sizes and times", self.cost()))
        text = "\n".join(parts)
        for title, (head, rows) in sections:
            lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
            text += f"\n\n## {title}\n\n" + "\n".join(lines)
        if published := PUBLISHED.get(self.about["data"]["layout"]):
            lines = [f"| {' | '.join(row)} |" for row in [published.columns, ["---"] * len(published.columns)]]
            lines += [f"| {' | '.join(row)} |" for row in published.rows]
            text += f"\n\n## {published.title}\n\n" + "\n".join(lines)
        return text + "\n"

    def html(self) -> str:
        data = self.about["data"]
        done = len(self.results)
        status = (
            f"This run is not finished: {done} of {self.wanted} networks are done; give its command again to go on."
        )
        published = PUBLISHED.get(data["layout"])
        cityscapes = self.cityscapes()
        pictures = gallery(self.run, self.about, self.results)
        values = {
            "title": tag("h1", data["name"]),
            "document_title": join(f"{data['name']} · voxpool report"),
            "subtitle": tag("p", f"{data['images']['val']} validation images · {done} networks", class_="subtitle"),
            "status": "" if done == self.wanted else tag("p", status, class_="warning", role="status"),
            "findings": tag("ul", (tag("li", sentence) for sentence in self.findings())),
            "classes": _table(*self.classes(), caption="IoU per class in percent", best=True),
            "paired": _table(*self.paired(), caption="Mean IoU with superpixels and without") if self.pairs else "",
            "cityscapes": _section("Cityscapes' scores", _table(*cityscapes, caption="Means over classes"))
            if cityscapes
            else "",
            "cost": _table(*self.cost(), caption="Sizes and times"),
            "pictures": _section("Images", pictures) if pictures else "",
            "published": _section(
                "What the papers report",
                _table(list(published.columns), [list(row) for row in published.rows], caption=published.title),
            )
            if published
            else "",
            "facts": tag("dl", (tag("div", tag("dt", name), tag("dd", value)) for name, value in self.facts())),
            "version": join(str(self.about["versions"]["voxpool"])),
            "style": resources.files("voxpool_pipelines.report").joinpath("style.css").read_text(encoding="utf-8"),
        }
        page = resources.files(__package__ or "").joinpath("page.html").read_text(encoding="utf-8")
        return Template(page).substitute(values)


_Pair = tuple[str, float, float, PairedTest, int, int]


def _pairs(results: list[dict[str, Any]]) -> list[_Pair]:
    """Networks trained both ways: mean IoU without and with superpixels, and the images compared."""
    found = []
    by_name = {(result["variant"]["net"], result["variant"]["head"]): result for result in results}
    for net in dict.fromkeys(result["variant"]["net"] for result in results):
        without, with_ = by_name.get((net, BASE)), by_name.get((net, SUPERPIXELS))
        if without and with_:
            mine, theirs = ([_number(row["mean_iou"]) for row in result["images"]] for result in (with_, without))
            better = sum(a > b for a, b in zip(mine, theirs, strict=True))
            worse = sum(a < b for a, b in zip(mine, theirs, strict=True))
            test = paired_test(mine, theirs)
            found.append((net, without["mean_iou"], with_["mean_iou"], test, better, worse))
    adjusted = adjust([pair[3] for pair in found])
    return [(*pair[:3], test, *pair[4:]) for pair, test in zip(found, adjusted, strict=True)]


def _section(title: str, *content: str) -> Markup:
    return tag("section", tag("h2", title), *content)


def _table(head: list[str], rows: Rows, *, caption: str, best: bool = False) -> Markup:
    def cells(row: list[str]) -> list[Markup]:
        numbers = [_number(value) for value in row[1:]]
        known = {number for number in numbers if not math.isnan(number)}
        marked = [
            tag("td", tag("b", text) if best and len(known) > 1 and number == max(known) else text)
            for text, number in zip(row[1:], numbers, strict=True)
        ]
        return [tag("th", row[0], scope="row"), *marked]

    first, *others = head
    names = [tag("th", first, scope="col", class_="text"), *(tag("th", name, scope="col") for name in others)]
    return table([names], map(cells, rows), caption=caption)


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _points(difference: float) -> str:
    """A difference in points, never as -0.0."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):  # a dash, or null for a number that there is not
        return math.nan


def _mean(values: Any) -> float:
    known = [number for number in map(_number, values) if not math.isnan(number)]
    return sum(known) / len(known) if known else math.nan


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}"


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
