import hashlib
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).parents[2] / "sample_data"
CASES = [f"sub-{number:02d}" for number in range(1, 7)]
SUM_LINE = re.compile(r"^\| `(cohort/[^`]+)` \| (\d+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def load(case, kind):
    return nib.load(ROOT / "cohort" / case / f"{case}_{kind}.nii.gz")


def arrays(case):
    return np.asarray(load(case, "t1").dataobj), np.asarray(load(case, "labels").dataobj)


def dice(prediction, target, label):
    hits = np.count_nonzero((prediction == label) & (target == label))
    return 2 * hits / (np.count_nonzero(prediction == label) + np.count_nonzero(target == label))


def three_means(values):
    centres = np.quantile(values, [0.1, 0.5, 0.9])
    for _ in range(40):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == k].mean() for k in range(3)])
    return nearest + 1


def test_readme_lists_every_file_with_its_size_and_sum():
    listed = {
        name: (int(size), digest)
        for name, size, digest in SUM_LINE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    }
    found = {
        path.relative_to(ROOT).as_posix(): (
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in (ROOT / "cohort").rglob("*")
        if path.is_file()
    }
    assert listed == found
    assert len(found) == 2 * len(CASES)


def test_all_sample_data_is_smaller_than_3_mb():
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 3_000_000


def test_licence_of_the_maps_is_there_in_full():
    text = (ROOT / "LICENSE-headmaps").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("case", CASES)
def test_case_is_a_well_formed_pair(case):
    image, labels = load(case, "t1"), load(case, "labels")
    assert image.shape == labels.shape
    np.testing.assert_array_equal(image.affine, labels.affine)
    for file in (image, labels):
        assert (int(file.header["sform_code"]), int(file.header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(file.header.get_qform(), file.affine, atol=1e-3)
        np.testing.assert_allclose(file.header.get_zooms(), 2.5, atol=1e-5)
    assert image.get_data_dtype() == np.int16
    assert labels.get_data_dtype() == np.uint8

    x, y = arrays(case)
    assert set(np.unique(y)) == {0, 1, 2, 3}
    assert np.count_nonzero(y == 1) > 1000
    assert x.min() == 0
    assert not y[x == 0].any()
    border = np.ones(x.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert not x[border].any(), "the brain must not touch the border of the volume"


@pytest.mark.parametrize("case", CASES)
def test_case_is_brain_like_and_neither_trivial_nor_hopeless(case):
    x, y = arrays(case)
    csf, gm, wm = (np.median(x[y == label]) for label in (1, 2, 3))
    assert csf < gm < wm
    prediction = np.zeros_like(y)
    prediction[x > 0] = three_means(x[x > 0].astype(float))
    assert 0.05 < dice(prediction, y, 1) < 0.35
    assert 0.70 < dice(prediction, y, 2) < 0.85
    assert 0.82 < dice(prediction, y, 3) < 0.93


def test_cohort_mixes_orientations_and_has_one_oblique_case():
    affines = [load(case, "t1").affine for case in CASES]
    assert {"".join(nib.aff2axcodes(affine)) for affine in affines} == {"LAS", "RAS", "LIA", "PIR"}
    assert [CASES[i] for i, affine in enumerate(affines) if nib.affines.obliquity(affine).max() > 0.01] == ["sub-04"]


@pytest.mark.parametrize("case", CASES)
def test_anatomy_is_the_right_way_up(case):
    """In RAS the cerebellum end of the brain is narrow and the ventricles lie near the middle plane."""
    labels = nib.as_closest_canonical(load(case, "labels"))
    y = np.asarray(labels.dataobj)
    widths = np.array([np.ptp(np.flatnonzero(plane)) if plane.any() else 0 for plane in (y > 0).any(1).T])
    filled = np.flatnonzero(widths)
    assert widths[filled[2]] < widths[filled[-len(filled) // 3]], "brain stem is narrower than the hemispheres"
    brain, ventricles = np.argwhere(y > 0).mean(0), np.argwhere(y == 1).mean(0)
    assert abs(brain[0] - ventricles[0]) * 2.5 < 6
