"""Whole files or none: with a full disk, a crash, a killed process, a refused folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voxpool.errors import ResourceError
from voxpool.io import atomic_path, write_json, write_text

FULL_DISK = """
import resource, sys
import numpy as np
from voxpool.errors import ResourceError
from voxpool.io import Geometry, Volume, write_json, write_volume

resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
what, target = sys.argv[1:]
try:
    if what == "volume":
        write_volume(target, noise, Volume(noise, Geometry(noise.shape, np.eye(4))))
    else:
        write_json(target, noise)
except ResourceError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("what", "name"), [("volume", "x.nii.gz"), ("volume", "x.nii"), ("json", "x.json")])
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing_new(tmp_path, what, name, exists):
    target = tmp_path / "out" / name
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"the result of yesterday")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, what, str(target)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 6, done.stderr
    assert f"{name}: the disk is full" in done.stdout
    assert list(target.parent.iterdir()) == ([target] if exists else [])
    if exists:
        assert target.read_bytes() == b"the result of yesterday"


def test_a_crash_inside_the_block_leaves_the_old_file(tmp_path):
    target = tmp_path / "x.txt"
    write_text(target, "old")
    seen = []

    def crash():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            seen.append(temporary)
            raise KeyError("crash")

    with pytest.raises(KeyError):
        crash()
    assert seen[0].parent == target.parent
    assert seen[0].name.endswith("x.txt")
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_appears_only_at_the_end(tmp_path):
    target = tmp_path / "new" / "folder" / "x.bin"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"content")
        assert not target.exists()
    assert target.read_bytes() == b"content"
    assert list(target.parent.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed(tmp_path):
    target = tmp_path / "x.json"
    kill = (
        "import os, sys\nfrom voxpool.io import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", kill, str(target)], check=False)
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    alive = tmp_path / leftover.name.replace(f"-{leftover.name.split('-')[2]}-", f"-{os.getpid()}-", 1)
    alive.write_text("another thread of this process is writing here")
    write_json(target, {"a": 1})
    assert sorted(tmp_path.iterdir()) == sorted([alive, target])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"x\.json: cannot be written into .*E601"):
        write_json(tmp_path / "file" / "x.json", {})


def test_errors_about_other_files_are_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x.txt"):
        Path(tmp_path / "missing input").read_text(encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "x.txt"):
        (tmp_path / "folder").read_text(encoding="utf-8")


def test_very_long_names_work(tmp_path):
    target = tmp_path / ("ü" * 120 + ".nii.gz")
    write_text(target, "content")
    assert list(tmp_path.iterdir()) == [target]


def test_json_is_plain_and_in_order(tmp_path):
    write_json(
        tmp_path / "x.json",
        {
            "z": float("nan"),
            "a": [np.float32(0.5), float("inf"), np.nan],
            3: (np.int64(7), True, None),
            np.int64(4): np.arange(2),
            "path": Path("a") / "ü",
            "nested": {"deep": {"nan": np.array([1.0, np.nan])}},
        },
    )
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "\n " in text
    assert json.loads(text) == {
        "z": None,
        "a": [0.5, None, None],
        "3": [7, True, None],
        "4": [0, 1],
        "path": os.path.join("a", "ü"),
        "nested": {"deep": {"nan": [1.0, None]}},
    }
    assert list(json.loads(text))[:3] == ["z", "a", "3"]
    with pytest.raises(TypeError):
        write_json(tmp_path / "y.json", {"x": object()})
    assert not (tmp_path / "y.json").exists()
