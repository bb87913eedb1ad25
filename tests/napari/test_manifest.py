import os
import subprocess
import sys
from importlib.metadata import entry_points

import npe2
from napari._app_model.constants import MenuId

from voxpool import __version__


def manifest():
    return npe2.PluginManifest.from_distribution("voxpool")


def test_manifest_is_found_through_the_installed_distribution():
    (entry,) = [each for each in entry_points(group="napari.manifest") if each.name == "voxpool"]
    assert entry.value == "napari_voxpool:napari.yaml"
    assert manifest().name == "voxpool"
    assert manifest().package_version == __version__


def test_every_command_is_importable_and_used():
    manifest().validate_imports()
    contributions = manifest().contributions
    used = {
        each.command
        for group in (contributions.readers, contributions.widgets, contributions.sample_data)
        for each in group
    }
    assert used == {each.id for each in contributions.commands}


def test_npe2_finds_nothing_to_complain_of():
    command = [sys.executable, "-m", "npe2", "validate", "--imports", "voxpool"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}  # it prints a tick
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout


def test_menus_are_those_that_plugins_may_add_to():
    assert set(manifest().contributions.menus) <= {str(each) for each in MenuId.contributables()}
