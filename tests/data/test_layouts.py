"""Every layout of a data set on disk, in synthetic files, and what is said when it is not there."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from voxpool.data import Case, find_dataset
from voxpool.errors import InputError, UsageError
from voxpool.io import Geometry, Volume, write_volume

SHAPE = (3, 3, 2)
TISSUES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}


def touch(path, values=(0, 1, 2, 3)):
    """Writes a small volume that holds the values."""
    array = np.resize(np.asarray(values), SHAPE)
    write_volume(path, array, Volume(array, Geometry(SHAPE, np.eye(4))))
    return path


def summary(dataset, root):
    """Case id to the relative paths of images and labels."""
    return {
        case.id: (
            *(image.relative_to(root).as_posix() for image in case.images),
            case.labels and case.labels.relative_to(root).as_posix(),
        )
        for case in dataset.cases
    }


@pytest.fixture
def ibsr(tmp_path):
    root = tmp_path / "IBSR_V2.0"
    for number in (1, 2, 18):
        name = f"IBSR_{number:02}"
        for kind in ("ana", "ana_strip", "ana_brainmask", "seg_ana", "segTRI_ana", "segTRI_fill_ana"):
            touch(root / name / f"{name}_{kind}.nii.gz")
    return root


def test_ibsr_official(ibsr):
    dataset = find_dataset(ibsr)
    assert summary(dataset, ibsr) == {
        f"IBSR_{n}": (f"IBSR_{n}/IBSR_{n}_ana_strip.nii.gz", f"IBSR_{n}/IBSR_{n}_segTRI_ana.nii.gz")
        for n in ("01", "02", "18")
    }
    assert dataset.name == "IBSR_V2.0"
    assert dataset.label_names == TISSUES
    assert dataset.convention.startswith("IBSR segTRI (ventricular CSF only")
    assert [case.subject for case in dataset.cases] == ["IBSR_01", "IBSR_02", "IBSR_18"]


@pytest.mark.parametrize("labels", ["segTRI_fill", "segTRI_fill_ana"])
def test_ibsr_with_the_filled_labels_and_the_whole_head(ibsr, labels):
    dataset = find_dataset(ibsr, image="ana", labels=labels)
    assert summary(dataset, ibsr)["IBSR_02"] == (
        "IBSR_02/IBSR_02_ana.nii.gz",
        "IBSR_02/IBSR_02_segTRI_fill_ana.nii.gz",
    )
    assert "segTRI_fill" in dataset.convention
    assert "sulcal CSF included" in dataset.convention


def test_ibsr_with_unknown_labels_or_a_missing_image(ibsr):
    with pytest.raises(UsageError, match="unknown IBSR label map 'seg', wanted segTRI_ana or segTRI_fill_ana"):
        find_dataset(ibsr, labels="seg")
    (ibsr / "IBSR_02" / "IBSR_02_ana_strip.nii.gz").unlink()
    with pytest.raises(InputError, match=r"IBSR_02_ana_strip\.nii\.gz is missing, found ana, ana_brainmask"):
        find_dataset(ibsr)


@pytest.mark.parametrize("folders", [False, True])
def test_ibsr_repacked_in_a_flat_folder_or_in_splits(tmp_path, folders):
    places = {"01": "Training_Set/IBSR_01", "11": "Validation_Set/IBSR_11", "02": "Test_Set/IBSR_02"}
    for number, place in places.items():
        root = tmp_path / place if folders else tmp_path
        touch(root / f"IBSR_{number}.nii.gz")
        if number != "02":  # the truth of the test set is withheld
            touch(root / f"IBSR_{number}_seg.nii.gz")
    dataset = find_dataset(tmp_path)
    assert [(case.id, case.labels is None) for case in dataset.cases] == [
        ("IBSR_01", False),
        ("IBSR_02", True),
        ("IBSR_11", False),
    ]
    assert dataset.cases[0].images[0].name == "IBSR_01.nii.gz"
    assert dataset.cases[0].labels.name == "IBSR_01_seg.nii.gz"
    assert "repacked" in dataset.convention
    with pytest.raises(UsageError, match="leave out image and labels"):
        find_dataset(tmp_path, labels="segTRI_fill_ana")


def test_ibsr_twice(ibsr):
    touch(ibsr / "copy" / "IBSR_01_ana.nii.gz")
    with pytest.raises(InputError, match=r"IBSR_01_ana\.nii\.gz: is there twice"):
        find_dataset(ibsr)


def test_ibsr_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no file below it is named IBSR_nn"):
        find_dataset(tmp_path, layout="ibsr")


def test_folder_with_patterns(tmp_path):
    for name in ("oasis_1000", "oasis_1001"):
        for kind in ("t1", "tissues", "tissues_fast"):
            touch(tmp_path / name / f"{name}_{kind}.nii.gz")
    dataset = find_dataset(tmp_path, image="*_t1.nii.gz", labels="*_tissues.nii.gz")
    assert summary(dataset, tmp_path) == {
        f"oasis_{n}": (f"oasis_{n}/oasis_{n}_t1.nii.gz", f"oasis_{n}/oasis_{n}_tissues.nii.gz") for n in (1000, 1001)
    }
    assert dataset.label_names == TISSUES
    assert "*_tissues.nii.gz" in dataset.convention


@pytest.mark.parametrize(
    ("files", "image", "labels", "wanted"),
    [
        # Separate folders, or a more general pattern that leaves the other's files alone.
        ("im/a.nii im/b.nii lab/a.nii", "im/*.nii", "lab/*.nii", {"a": True, "b": False}),
        ("a.nii a_seg.nii b.nii", "*.nii", "*_seg.nii", {"a": True, "b": False}),
        ("a.nii.gz a_t1.nii.gz", "*_t1.nii.gz", "*.nii.gz", {"a": True}),
        # The same names in every folder: the folder is the case.
        ("a/t1.nii a/seg.nii b/t1.nii b/seg.nii", "t1.nii", "seg.nii", {"a": True, "b": True}),
        ("x/a/t1.nii x/a/seg.nii y/a/t1.nii y/a/seg.nii", "t*.nii", "s*.nii", {"x_a": True, "y_a": True}),
        ("a/t1.nii a/seg-07.nii b/t1.nii b/seg-1.nii", "t1.nii", "seg-*.nii", {"a": True, "b": True}),
        # BIDS: both stars say the same, and a folder lies between the subject and the file.
        (
            "sub-1/anat/sub-1_T1w.nii sub-1/anat/sub-1_dseg.nii sub-2/anat/sub-2_T1w.nii",
            "sub-*/anat/sub-*_T1w.nii",
            "sub-*/anat/sub-*_dseg.nii",
            {"1": True, "2": False},
        ),
        ("p/q/a_t1.nii p/q/a_l.nii", "**/*_t1.nii", "**/*_l.nii", {"a": True}),
        ("a1.nii a1x.nii b2.nii b2x.nii", "[a-z]?.nii", "*x.nii", None),
    ],
)
def test_how_patterns_pair_files(tmp_path, files, image, labels, wanted):
    for file in files.split():
        touch(tmp_path / file)
    touch(tmp_path / ".hidden" / "z_t1.nii.gz")
    touch(tmp_path / ".part-a_t1.nii.gz")
    if wanted is None:
        with pytest.raises(InputError, match="cannot tell which files belong together"):
            find_dataset(tmp_path, image=image, labels=labels)
        return
    dataset = find_dataset(tmp_path, image=image, labels=labels)
    assert {case.id: case.labels is not None for case in dataset.cases} == wanted
    assert {image for case in dataset.cases for image in case.images}.isdisjoint(
        {case.labels for case in dataset.cases}
    )


def test_folder_without_labels_and_with_two_channels(tmp_path):
    for name in ("a", "b"):
        touch(tmp_path / f"{name}_t1.nii.gz")
        touch(tmp_path / f"{name}_t2.nii.gz")
    dataset = find_dataset(tmp_path, image=("*_t1.nii.gz", "*_t2.nii.gz"))
    assert summary(dataset, tmp_path) == {
        "a": ("a_t1.nii.gz", "a_t2.nii.gz", None),
        "b": ("b_t1.nii.gz", "b_t2.nii.gz", None),
    }
    (tmp_path / "b_t2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case b has no channel '\*_t2\.nii\.gz'"):
        find_dataset(tmp_path, image=("*_t1.nii.gz", "*_t2.nii.gz"))


def test_sessions_of_a_subject_are_known_by_bids_names(tmp_path):
    for name in ("sub-01_ses-1", "sub-01_ses-2", "sub-02", "other_sub-01"):
        touch(tmp_path / f"{name}_T1w.nii.gz")
    dataset = find_dataset(tmp_path, image="*_T1w.nii.gz")
    assert {case.id: case.subject for case in dataset.cases} == {
        "sub-01_ses-1": "sub-01",
        "sub-01_ses-2": "sub-01",
        "sub-02": "sub-02",
        "other_sub-01": "other_sub-01",
    }


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "store" / "a_t1.nii.gz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "case").symlink_to(tmp_path / "store", target_is_directory=True)
    (tmp_path / "store" / "back").symlink_to(tmp_path / "data", target_is_directory=True)
    dataset = find_dataset(tmp_path / "data", image="*_t1.nii.gz")
    assert [case.id for case in dataset.cases] == ["a"]


@pytest.mark.parametrize(
    ("image", "labels", "found"),
    [
        ("*_t9.nii.gz", None, r"no file below it is named '\*_t9\.nii\.gz'"),
        ("*_t1.nii.gz", "*_nothing.nii.gz", r"no file below it is named '\*_nothing\.nii\.gz'"),
        ("*_t1.nii.gz", "*_l.nii.gz", r"b_l\.nii\.gz has no partner named '\*_t1\.nii\.gz' \(1 of 2"),
    ],
)
def test_patterns_that_find_nothing_or_no_partner(tmp_path, image, labels, found):
    for name in ("a_t1", "a_l", "b_l"):
        touch(tmp_path / f"{name}.nii.gz")
    with pytest.raises(InputError, match=found):
        find_dataset(tmp_path, image=image, labels=labels)


def test_wrong_use_of_patterns(tmp_path):
    with pytest.raises(UsageError, match="must differ"):
        find_dataset(tmp_path, image="*.nii", labels="*.nii")
    with pytest.raises(UsageError, match="needs the name pattern"):
        find_dataset(tmp_path, layout="folder")
    with pytest.raises(UsageError, match="unknown layout 'bids', wanted auto or one of ibsr, folder"):
        find_dataset(tmp_path, layout="bids")


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_manifest(tmp_path, suffix, separator):
    elsewhere = touch(tmp_path / "elsewhere" / "c.nii.gz")
    rows = [
        ["ID", " image", "subject", "labels", "age"],
        ["b", "scans/b.nii.gz", "ann", "scans/b_l.nii.gz", "30"],
        ["a, first" if suffix == "tsv" else "a", "scans/a1.nii.gz; scans/a2.nii.gz", "", "", ""],
        ["c", str(elsewhere), "ann"],
        ["", "", "", "", ""],
    ]
    manifest = tmp_path / f"study.{suffix}"
    manifest.write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n", encoding="utf-8")
    dataset = find_dataset(manifest)
    first = "a, first" if suffix == "tsv" else "a"
    scans = tmp_path / "scans"
    assert dataset.name == "study"
    assert dataset.cases == (
        Case(first, (scans / "a1.nii.gz", scans / "a2.nii.gz"), None, first),
        Case("b", (scans / "b.nii.gz",), scans / "b_l.nii.gz", "ann"),
        Case("c", (elsewhere,), None, "ann"),
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "found nothing"),
        ("name\timage\na\tb\n", "wanted the columns id, image"),
        ("id,image\n", "lists no case"),
        ("id,image\na,\n", "line 2 has no id or no image"),
        ("id,image\na,x.nii\nb,y.nii\na,z.nii\n", "two cases have the id 'a'"),
        ("id,image\n../a,x.nii\n", "cannot be a file name"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, found):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=found):
        find_dataset(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes(b"id,image\n\xff\xfe,x\n")
    with pytest.raises(InputError, match="no readable table"):
        find_dataset(tmp_path / "m.csv")


def nnunet(root, *, channels=2, **content):
    for name in ("case_b", "case_a"):
        for channel in range(channels):
            touch(root / "imagesTr" / f"{name}_{channel:04}.nii.gz")
        touch(root / "labelsTr" / f"{name}.nii.gz")
    described = {
        "channel_names": {str(c): "T" for c in range(channels)},
        "labels": {"background": 0, "liquor": 1, "rest": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(described | content))
    return root


@pytest.mark.parametrize("name_the_file", [False, True])
def test_nnunet(tmp_path, name_the_file):
    root = nnunet(tmp_path / "Dataset001_Brain")
    dataset = find_dataset(root / "dataset.json" if name_the_file else root)
    assert summary(dataset, root) == {
        f"case_{n}": (
            f"imagesTr/case_{n}_0000.nii.gz",
            f"imagesTr/case_{n}_0001.nii.gz",
            f"labelsTr/case_{n}.nii.gz",
        )
        for n in "ab"
    }
    assert dataset.name == "Dataset001_Brain"
    assert dataset.label_names == {0: "background", 1: "liquor", 2: "rest"}


def test_nnunet_with_listed_files(tmp_path):
    listed = {"x": {"images": ["imagesTr/case_a_0000.nii.gz"], "label": "labelsTr/case_a.nii.gz"}}
    root = nnunet(tmp_path, dataset=listed)
    assert summary(find_dataset(root), root) == {"x": ("imagesTr/case_a_0000.nii.gz", "labelsTr/case_a.nii.gz")}
    nnunet(tmp_path, dataset={"x": {"image": "a"}})
    with pytest.raises(InputError, match="case x lists no images"):
        find_dataset(root)


def test_nnunet_with_a_missing_channel(tmp_path):
    root = nnunet(tmp_path)
    (root / "imagesTr" / "case_b_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case case_b has the channels \[0\], wanted 0 to 1"):
        find_dataset(root)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"background": 0, "all": [1, 2]}, "regions are not supported"),
        ({"background": 0, "ignore": 3}, "ignore label is not supported"),
    ],
)
def test_nnunet_labels_that_are_not_supported(tmp_path, labels, found):
    with pytest.raises(InputError, match=found):
        find_dataset(nnunet(tmp_path, labels=labels))


def test_the_first_nnunet_is_told_from_msd(tmp_path):
    """It had MSD's dataset.json, listing images under names without the channel."""
    root = nnunet(tmp_path, channels=1)
    described = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "x"},
        "training": [{"image": "./imagesTr/case_a.nii.gz", "label": "./labelsTr/case_a.nii.gz"}],
    }
    (root / "dataset.json").write_text(json.dumps(described))
    assert summary(find_dataset(root), root)["case_a"][0] == "imagesTr/case_a_0000.nii.gz"


def test_msd(tmp_path):
    root = tmp_path / "Task04"
    for name in ("h_002", "h_001"):
        touch(root / "imagesTr" / f"{name}.nii.gz")
        touch(root / "labelsTr" / f"{name}.nii.gz")
    entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("h_002", "h_001")]
    described = {"name": "H", "labels": {"0": "background", "2": "Back", "1": "Front"}, "training": entries}
    (root / "dataset.json").write_text(json.dumps(described))
    for path in (root, root / "dataset.json"):
        dataset = find_dataset(path)
        assert summary(dataset, root) == {
            f"h_00{n}": (f"imagesTr/h_00{n}.nii.gz", f"labelsTr/h_00{n}.nii.gz") for n in (1, 2)
        }
        assert dataset.name == "Task04"
        assert dataset.label_names == {0: "background", 1: "Front", 2: "Back"}
    with pytest.raises(UsageError, match="MSD layout names its files itself"):
        find_dataset(root, layout="msd", labels="*.nii.gz")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "is not JSON"),
        ("[]", "wanted a JSON object, found a list"),
        ("{}", "no list named training"),
        ('{"training": [{"label": "x"}]}', "has no image"),
        ('{"training": [3]}', "has no image"),
    ],
)
def test_a_dataset_json_that_cannot_be_used(tmp_path, text, found):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=found):
        find_dataset(tmp_path)


def test_nothing_found_says_what_was_looked_for(tmp_path):
    touch(tmp_path / "scan.nii.gz")
    (tmp_path / "list.csv").write_text("id,image\n")
    with pytest.raises(InputError) as caught:
        find_dataset(tmp_path)
    for wanted in ("IBSR_nn", "nnU-Net", "MSD dataset.json", "'*_t1.nii.gz'", "such as list.csv"):
        assert wanted in str(caught.value)
    with pytest.raises(InputError, match="no such file or folder"):
        find_dataset(tmp_path / "missing")
    with pytest.raises(InputError, match=r"wanted a folder, a \.csv"):
        find_dataset(tmp_path / "scan.nii.gz")


def test_two_layouts_at_once_are_not_guessed(ibsr):
    nnunet(ibsr)
    with pytest.raises(InputError, match="fits the layouts ibsr and nnunet; choose one"):
        find_dataset(ibsr)
    assert len(find_dataset(ibsr, layout="ibsr").cases) == 3
    assert len(find_dataset(ibsr, layout="nnunet").cases) == 2


@pytest.mark.parametrize(
    ("values", "given", "wanted"),
    [
        ([0, 1, 2, 3], None, TISSUES),
        ([0, 2], None, TISSUES),
        ([0, 1, 2, 4], None, {0: "class_0", 1: "class_1", 2: "class_2", 4: "class_4"}),
        ([5, 1], None, {0: "class_0", 1: "class_1", 5: "class_5"}),
        ([0, 1], "1=CSF, 0=BG", {0: "BG", 1: "CSF"}),
        ([0, 1], {0: "nothing", 1: "all"}, {0: "nothing", 1: "all"}),
    ],
)
def test_label_names(tmp_path, values, given, wanted):
    touch(tmp_path / "a_t1.nii.gz")
    touch(tmp_path / "a_l.nii.gz", values)
    dataset = find_dataset(tmp_path, image="*_t1.nii.gz", labels="*_l.nii.gz", label_names=given)
    assert dataset.label_names == wanted
    assert list(dataset.label_names) == sorted(wanted)


@pytest.mark.parametrize("text", ["CSF", "0=BG,1", "0=BG,0=X", "0=BG,1=BG", "-1=X", "0=", ""])
def test_label_names_that_cannot_be_read(tmp_path, text):
    touch(tmp_path / "a_t1.nii.gz")
    with pytest.raises(UsageError, match="label names"):
        find_dataset(tmp_path, image="*_t1.nii.gz", label_names=text)


@pytest.mark.parametrize(
    "case_id",
    ["", "a/b", "a\\b", "..", ".a", "-rf", "a.", "a ", "x" * 121, "CON", "nul.x", "a:b", "a\nb", "a*"],
)
def test_ids_that_are_no_safe_file_names(case_id):
    with pytest.raises(InputError, match=r"cannot be a file name.*E127"):
        Case(case_id, (), None, "s")


@pytest.mark.parametrize("case_id", ["IBSR_01", "sub-01_ses-2", "Müller 3", "a.b", "x" * 120, "console"])
def test_ids_that_are_safe_file_names(tmp_path, case_id):
    (tmp_path / f"{Case(case_id, (), None, 's').id}.nii.gz").touch()
    assert os.listdir(tmp_path) == [f"{case_id}.nii.gz"]


def test_finding_data_needs_neither_torch_nor_monai():
    code = (
        "import sys\nfrom voxpool.data import check_dataset, find_dataset, make_folds, read_folds\n"
        "print(sorted({'torch', 'monai', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
