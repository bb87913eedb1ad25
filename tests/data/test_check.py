"""Each thing that can be wrong with a data set is found, named with its case, and all are found at once."""

import gzip
import tracemalloc

import numpy as np
import pytest

from voxpool.data import Case, Dataset, Fold, check_dataset, make_folds, render_findings
from voxpool.io import Geometry, Volume, write_volume

SHAPE = (6, 5, 4)
NAMES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}


def write(path, array, affine=None):
    array = np.asarray(array)
    affine = np.eye(4) if affine is None else affine
    write_volume(path, array, Volume(np.zeros(array.shape), Geometry(array.shape, affine)))
    return path


def make(root, count=4, affine=None):
    """A data set without a fault."""
    cases = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image = write(root / f"c{number}_t1.nii.gz", rng.integers(0, 999, SHAPE), affine)
        labels = write(
            root / f"c{number}_l.nii.gz",
            rng.permutation(np.resize(np.arange(4), SHAPE).ravel()).reshape(SHAPE),
            affine,
        )
        cases.append(Case(f"c{number}", (image,), labels, f"s{number}"))
    return Dataset("study", tuple(cases), NAMES, "as given")


def change(dataset, index, **fields):
    """The data set with one case changed."""
    cases = list(dataset.cases)
    old = cases[index]
    cases[index] = Case(**({"id": old.id, "images": old.images, "labels": old.labels, "subject": old.subject} | fields))
    return Dataset(dataset.name, tuple(cases), dataset.label_names, dataset.convention)


def found(dataset, **options):
    return [(f.level, f.code, f.case_id, f.message) for f in check_dataset(dataset, **options)]


def only(dataset, **options):
    (finding,) = found(dataset, **options)
    return finding


def test_a_sound_data_set_has_no_finding(tmp_path):
    dataset = make(tmp_path)
    calls = []
    assert found(dataset, folds=make_folds(dataset.cases, 2), progress=lambda *a: calls.append(a)) == []
    assert calls == [(1, 4, "c0"), (2, 4, "c1"), (3, 4, "c2"), (4, 4, "c3")]
    assert render_findings([]) == ["no errors, no warnings"]


def test_everything_is_found_at_once(tmp_path):
    dataset = make(tmp_path)
    dataset.cases[0].images[0].unlink()
    dataset.cases[1].labels.write_bytes(b"")
    nan = np.ones(SHAPE, np.float32)
    nan[0, 0, 0] = np.nan
    write(dataset.cases[2].images[0], nan)
    write(dataset.cases[3].labels, np.full(SHAPE, 9))
    codes = [(level, code, case) for level, code, case, _ in found(dataset)]
    assert codes == [
        ("error", "E101", "c0"),
        ("error", "E102", "c1"),
        ("error", "E111", "c2"),
        ("error", "E122", "c3"),
    ]


def test_lines_name_level_code_case_and_count(tmp_path):
    dataset = make(tmp_path)
    write(dataset.cases[0].labels, np.zeros(SHAPE, np.uint8))
    dataset.cases[3].labels.unlink()
    lines = render_findings(check_dataset(dataset))
    assert lines[0].split()[:3] == ["error", "E101", "c3:"]
    assert "c3_l.nii.gz: no such file" in lines[0]
    assert not lines[0].endswith("(E101)")
    assert lines[1].split()[:3] == ["warning", "W205", "c0:"]
    assert lines[2] == "1 error, 1 warning"


def test_label_grid_of_another_shape(tmp_path):
    dataset = make(tmp_path)
    write(dataset.cases[1].labels, np.resize(np.arange(4), (6, 5, 3)))
    level, code, case_id, message = only(dataset)
    assert (level, code, case_id) == ("error", "E120", "c1")
    assert "has the shape (6, 5, 3), the image has (6, 5, 4)" in message


@pytest.mark.parametrize(("shift", "wrong"), [(0.05, False), (0.2, True)])
def test_label_grid_at_another_place(tmp_path, shift, wrong):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    dataset = make(tmp_path, affine=affine)
    affine[2, 3] = shift
    write(dataset.cases[2].labels, np.resize(np.arange(4), SHAPE), affine)
    findings = found(dataset)
    assert [(code, case_id) for _, code, case_id, _ in findings] == [("E121", "c2")] * wrong
    assert all("lies up to 0.2 mm off the image" in message for *_, message in findings)


def test_flipped_labels_are_off_the_image(tmp_path):
    dataset = make(tmp_path)
    write(dataset.cases[2].labels, np.resize(np.arange(4), SHAPE), np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert only(dataset)[1] == "E121"


def test_channels_on_different_grids_and_of_different_number(tmp_path):
    dataset = make(tmp_path)
    second = write(tmp_path / "c0_t2.nii.gz", np.random.default_rng(9).integers(0, 99, (6, 5, 3)))
    dataset = change(dataset, 0, images=(*dataset.cases[0].images, second))
    findings = found(dataset)
    assert [(code, case_id) for _, code, case_id, _ in findings] == [("E125", None), ("E120", "c0")]
    assert "cases have 1 or 2 channels" in findings[0][3]


def test_unknown_and_fractional_labels(tmp_path):
    dataset = make(tmp_path)
    values = np.resize(np.arange(4), SHAPE)
    values[0, 0, 0] = 77
    write(dataset.cases[0].labels, values)
    write(dataset.cases[1].labels, np.full(SHAPE, 0.999, np.float32))
    unknown, fraction = found(dataset)
    assert unknown[:3] == ("error", "E122", "c0")
    assert "unknown label 77 (1 voxels), known are 0, 1, 2, 3" in unknown[3]
    assert fraction[:3] == ("error", "E122", "c1")
    assert "found 0.999" in fraction[3]


def test_label_values_with_a_gap(tmp_path):
    dataset = make(tmp_path)
    dataset = Dataset("study", dataset.cases, {0: "BG", 1: "CSF", 2: "GM", 3: "WM", 7: "X"}, "as given")
    codes = [(code, message) for _, code, _, message in found(dataset)]
    assert [code for code, _ in codes] == ["E122", "E124"]
    assert "must be 0 to 4 without a gap, got 0, 1, 2, 3, 7" in codes[0][1]
    assert "X has no voxel in any case" in codes[1][1]


def test_constant_image(tmp_path):
    dataset = make(tmp_path)
    write(dataset.cases[1].images[0], np.full(SHAPE, 5))
    assert only(dataset)[:3] == ("error", "E116", "c1")


def test_empty_labels_of_one_case_and_of_all(tmp_path):
    dataset = make(tmp_path)
    write(dataset.cases[1].labels, np.zeros(SHAPE, np.uint8))
    assert only(dataset)[:3] == ("warning", "W205", "c1")
    for case in dataset.cases:
        write(case.labels, np.zeros(SHAPE, np.uint8))
    findings = found(dataset)
    assert findings[0][:3] == ("error", "E123", None)
    assert [code for _, code, _, _ in findings[1:]] == ["W205"] * 4


def test_class_absent_from_a_side_of_a_fold(tmp_path):
    dataset = make(tmp_path)
    for index in (0, 1):
        write(dataset.cases[index].labels, np.resize([0, 1, 2, 1, 0, index], SHAPE))
    folds = [Fold(("c2", "c3"), ("c0", "c1")), Fold(("c0", "c1"), ("c2", "c3"))]
    test, train = found(dataset, folds=folds)
    assert test[:3] == ("error", "E124", None)
    assert "WM has no voxel in any test case of fold 0" in test[3]
    assert "WM has no voxel in any training case of fold 1" in train[3]
    assert found(dataset) == []


def test_folds_are_checked_with_the_data(tmp_path):
    dataset = change(make(tmp_path), 3, subject="s0")
    folds = [Fold(("c0", "c1"), ("c2", "c3")), Fold(("c2", "c3"), ("c1",))]
    codes = {code for _, code, _, _ in found(dataset, folds=folds)}
    assert codes == {"E126", "E128"}
    assert [code for _, code, _, _ in found(make(tmp_path, 2), folds=[folds[0]] * 3)].count("E129") == 1


def test_ids_that_are_one_file_on_some_systems(tmp_path):
    dataset = change(change(make(tmp_path), 0, id="Müller"), 2, id="mu\u0308LLER")
    level, code, case_id, message = only(dataset)
    assert (level, code, case_id) == ("error", "E127", None)
    assert "Müller" in message
    assert only(change(make(tmp_path), 0, id="c1"))[1] == "E127"


def test_copies_are_found_even_when_compressed_anew(tmp_path):
    dataset = make(tmp_path)
    plain = gzip.decompress(dataset.cases[0].images[0].read_bytes())
    dataset.cases[2].images[0].write_bytes(gzip.compress(plain, 1))
    level, code, case_id, message = only(dataset)
    assert (level, code, case_id) == ("error", "E127", "c2")
    assert "same voxels as c0 (c0_t1.nii.gz)" in message


def test_copied_labels_are_a_warning(tmp_path):
    dataset = make(tmp_path)
    dataset.cases[3].labels.write_bytes(dataset.cases[1].labels.read_bytes())
    assert only(dataset)[:3] == ("warning", "W209", "c3")


def test_unlabelled_cases(tmp_path):
    dataset = change(make(tmp_path), 1, labels=None)
    assert only(dataset)[:3] == ("warning", "W208", "c1")
    folds = make_folds(dataset.cases, 2)
    assert only(dataset, folds=folds)[:3] == ("error", "E101", "c1")


def test_mixed_orientations_and_voxel_sizes(tmp_path):
    dataset = make(tmp_path)
    affine = np.diag([-1.0, 1.0, 1.5, 1.0])
    for path in (dataset.cases[2].images[0], dataset.cases[2].labels):
        write(
            path,
            np.random.default_rng(8).permutation(np.resize(np.arange(4), SHAPE).ravel()).reshape(SHAPE),
            affine,
        )
    orientation, spacing = found(dataset)
    assert orientation[:3] == ("warning", "W206", None)
    assert "LAS (1 case), RAS (3 cases)" in orientation[3]
    assert spacing[:3] == ("warning", "W207", None)
    assert "1 to 1, 1 to 1, 1 to 1.5 mm" in spacing[3]


def test_another_order_of_the_same_voxel_sizes_is_no_mixture(tmp_path):
    dataset = make(tmp_path, affine=np.diag([1.0, 1.0, 1.5, 1.0]))
    turned = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    for path in (dataset.cases[2].images[0], dataset.cases[2].labels):
        write(
            path,
            np.random.default_rng(8).permutation(np.resize(np.arange(4), SHAPE).ravel()).reshape(SHAPE),
            turned,
        )
    assert [code for _, code, _, _ in found(dataset)] == ["W206"]


def test_oblique_and_unusual_grids(tmp_path):
    angle = np.radians(10)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    findings = found(make(tmp_path, 1, affine=affine))
    assert [f[:3] for f in findings] == [("info", "I301", "c0")]
    assert "10.0 degrees oblique" in findings[0][3]
    level, code, case_id, message = only(make(tmp_path, 1, affine=np.diag([0.5, 0.5, 6.0, 1.0])))
    assert (level, code, case_id) == ("warning", "W204", "c0")
    assert message.startswith("c0_t1.nii.gz: its voxels are 12 times")


def test_no_case_at_all():
    assert found(Dataset("study", (), NAMES, ""))[0][:2] == ("error", "E101")


def test_one_case_is_in_memory_at_a_time(tmp_path):
    shape = (64, 64, 32)
    cases = []
    for number in range(6):
        rng = np.random.default_rng(number)
        image = write(tmp_path / f"{number}.nii.gz", rng.integers(0, 99, shape))
        cases.append(Case(str(number), (image,), write(tmp_path / f"{number}l.nii.gz", rng.integers(0, 4, shape)), "s"))
    peaks = []
    for count in (1, 6):
        tracemalloc.start()
        check_dataset(Dataset("study", tuple(cases[:count]), NAMES, ""))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
