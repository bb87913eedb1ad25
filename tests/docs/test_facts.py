"""What the documentation states as fact agrees with the code."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

import voxpool
from voxpool.nets import NETS, VERSIONS, count_parameters, create_net

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROWS = {
    "VoxResNet, full": ("voxresnet", {"reduction": 1}),
    "VoxResNet, reduction 4": ("voxresnet", {"reduction": 4}),
    "VoxResNet, reduction 8": ("voxresnet", {"reduction": 8}),
    "SegResNet, 8 filters": ("segresnet", {}),
    "Guided VoxResNet": ("guided_voxresnet", {}),
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def table_row(text: str, name: str) -> list[int]:
    """Numbers of the row that starts with a name."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [int(cell.strip().replace(",", "")) for cell in line.strip("|").split("|")[1:]]


def counted(name: str, heads: tuple[str, ...]) -> list[int]:
    net, options = ROWS[name]
    return [count_parameters(create_net(net, head=head, **options)) for head in heads]


@pytest.mark.parametrize("name", ROWS)
def test_parameter_table_of_networks_page(name):
    stated = table_row(read(DOCS / "explanation" / "networks.md"), name)
    assert stated == counted(name, ("base", "v2", "v3"))
    assert counted(name, ("v1",)) == stated[:1]


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("VoxResNet")])
def test_parameter_table_of_readme(name):
    assert table_row(read(ROOT / "README.md"), name) == counted(name, ("base", *VERSIONS))


def test_every_network_is_in_the_table():
    assert {net for net, _ in ROWS.values()} == set(NETS)


def test_every_code_of_a_finding_is_explained():
    raised = set()
    for path in (ROOT / "voxpool").rglob("*.py"):
        raised |= {hit[1] for hit in re.finditer(r'[("]([EW]\d{3})[)"]', read(path))}
    stated = set(re.findall(r"^\| ([EW]\d{3}) \|", read(DOCS / "how-to" / "data-sets.md"), re.MULTILINE))
    assert len(raised) > 20
    assert stated == raised


def test_exit_codes_are_those_of_the_errors():
    from voxpool import errors
    from voxpool_pipelines.cli import SOME_FAILED

    stated = read(DOCS / "reference" / "command-line.md")
    kinds = (errors.UsageError, errors.InputError, errors.ModelError, errors.ResourceError)
    words = ("an option or argument", "a file or data set", "a model package", "memory, disk or device")
    codes = [kind.exit_code for kind in kinds]
    for code, meaning in zip((*codes, SOME_FAILED), (*words, "some cases failed"), strict=True):
        assert f"| {code} | {meaning}" in stated


def test_every_command_has_its_section():
    from voxpool_pipelines.cli import app

    named = {command.name or command.callback.__name__ for command in app.registered_commands}
    for group in app.registered_groups:
        named |= {f"{group.name} {command.name}" for command in group.typer_instance.registered_commands}
    page = read(DOCS / "reference" / "command-line.md")
    assert set(re.findall(r"^<!-- help: (.*) -->$", page, re.MULTILINE)) == named
    assert set(re.findall(r"^\| \[`(.*?)`\]", page, re.MULTILINE)) == named


def test_viewer_words_of_the_tutorial_are_those_of_the_plugin():
    manifest = yaml.safe_load(read(ROOT / "napari_plugin" / "napari.yaml"))
    page = read(DOCS / "tutorials" / "clinician.md")
    widget, planes = manifest["contributions"]["widgets"]
    assert f"*{planes['display_name']}*" in page.replace("\n   ", " ")
    (sample,) = manifest["contributions"]["sample_data"]
    assert f"*Layers → Segment → {widget['display_name']}*" in page
    assert f"*File → Open Sample → {sample['display_name']}*" in page
    assert manifest["contributions"]["menus"]["napari/layers/segment"] == [{"command": widget["command"]}]


def test_report_keys_of_the_reference_exist():
    from voxpool_pipelines.report import data

    page = read(DOCS / "reference" / "run-folder.md")
    section = page.split("## A variant in `report.json`")[1].split("## ")[0]
    first_cells = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    stated = set(re.findall(r"`(\w+)`", first_cells))
    written = set(re.findall(r'^        "(\w+)":', inspect.getsource(data.variant_entry), re.MULTILINE))
    assert stated == written


def test_citation_and_changelog_know_the_version():
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert citation["version"] == voxpool.__version__
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == [
        "Schuurmans",
        "Berman",
        "Blaschko",
    ]
    assert voxpool.__version__ in read(ROOT / "CHANGELOG.md")


def test_navigation_lists_every_page():
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    listed = set(re.findall(r": ([\w/-]+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE))
    assert listed == pages


def test_links_of_root_files_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(ROOT / name)):
            assert (ROOT / target).exists(), f"{name} links to {target}"
