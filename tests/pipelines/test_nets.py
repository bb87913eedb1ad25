import json

from rich.console import Console
from typer.testing import CliRunner

from voxpool.nets2d import PLANAR_NETS
from voxpool_pipelines.cli import app
from voxpool_pipelines.nets import print_nets


def test_nets_lists_every_network_with_its_size():
    found = json.loads(CliRunner().invoke(app, ["nets", "--json"]).stdout)
    assert [row["name"] for row in found] == list(PLANAR_NETS)
    (enet,) = [row for row in found if row["name"] == "enet"]
    assert (enet["parameters"], enet["parameters_folded"]) == (364_311, 355_959)
    # at 512 x 1024 instead of the 360 x 640 that the count of 1.72 is for
    assert abs(enet["gmacs"] / 1.72 - 512 * 1024 / (360 * 640)) < 0.02


def test_the_table_names_them_all():
    console = Console(record=True, width=140)
    print_nets(console)
    text = console.export_text()
    for name in PLANAR_NETS:
        assert f" {name} " in text
    assert "voxresnet, segresnet, guided_voxresnet" in text
