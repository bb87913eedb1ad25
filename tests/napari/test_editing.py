"""Corrections without a window: regions, edits, undo, journal."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_voxpool.display import Shown
from napari_voxpool.editing import Correction
from napari_voxpool.journal import About, Journal, fingerprint
from napari_voxpool.regions import Regions
from napari_voxpool.session import SegmentationSession, stored_session
from voxpool.data.phantom import phantom
from voxpool.errors import InputError, ResourceError, UsageError
from voxpool.io import Geometry, Volume
from voxpool.metrics import dice
from voxpool.supervoxels import oracle_labels, slic

NAMES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}
SHAPE = (30, 32, 28)


@pytest.fixture(scope="module")
def scene():
    """Image, truth and supervoxels in the order (S, A, R)."""
    image, labels = phantom(SHAPE, seed=2)
    segments = np.asarray(slic(image, 120, mask=image > 0))
    return image, labels.astype(np.uint8), segments


def regions_of(scene):
    image, _, segments = scene
    return Regions(segments, image, np.random.default_rng(0).random(segments.max() + 1))


def correction_of(scene):
    return Correction(scene[1].copy(), NAMES, 0.002, regions_of(scene))


def test_regions_know_their_voxels_means_and_middles(scene):
    image, _, segments = scene
    regions = regions_of(scene)
    assert len(regions) == segments.max() + 1
    for number in range(0, len(regions), 7):
        np.testing.assert_array_equal(np.sort(regions.voxels([number])), np.flatnonzero(segments == number))
        assert regions.means[number] == pytest.approx(image[segments == number].mean(), rel=1e-5)
        assert segments[regions.centre(number)] == number
        assert regions.at(regions.centre(number)) == number
    assert regions.at((0, 0, 0)) is None
    assert regions.at((-1, 5, 5)) is None
    assert regions.at((5, SHAPE[1], 5)) is None
    order = regions.by_doubt()
    assert sorted(order) == list(range(len(regions)))
    assert np.all(np.diff(regions.uncertainty[order]) <= 0)


def test_regions_without_a_voxel_are_left_out(scene):
    image, _, segments = scene
    doubt = np.linspace(0, 1, segments.max() + 1)
    holes = segments.copy()
    holes[np.isin(holes, (3, 10))] = -1
    regions = Regions(holes, image, doubt)
    assert len(regions) == len(doubt) - 2
    np.testing.assert_array_equal(regions.uncertainty, np.delete(doubt, (3, 10)).astype(np.float32))
    np.testing.assert_array_equal(regions.voxels([3]), np.flatnonzero(segments == 4))
    regions.family(0, 1)


def test_similar_regions_are_connected_and_alike(scene):
    segments = scene[2]
    regions = regions_of(scene)
    start = regions.at(np.argwhere(scene[1] == 3)[0])
    assert regions.similar(start, 0.0) == [start]
    few, many = regions.similar(start, 0.2), regions.similar(start, 0.6)
    assert few[0] == start
    assert set(few) <= set(many)
    assert len(many) > 1
    for found, tolerance in ((few, 0.2), (many, 0.6)):
        assert np.abs(regions.means[found] - regions.means[start]).max() <= tolerance * regions.means.std()
        assert ndimage.label(np.isin(segments, found))[1] == 1
    # nothing alike that touches them was forgotten
    grown = ndimage.binary_dilation(np.isin(segments, many)) & (segments >= 0) & ~np.isin(segments, many)
    outside = np.unique(segments[grown])
    assert np.abs(regions.means[outside] - regions.means[start]).min() > 0.6 * regions.means.std()


def test_families_are_nested_and_grow(scene):
    regions = regions_of(scene)
    for number in (0, 17, 60):
        small, middle, large = (set(regions.family(number, level)) for level in (0, 1, 2))
        assert small == {number}
        assert small < middle <= large
        other = next(iter(middle - small))
        assert set(regions.family(other, 1)) == middle


def test_an_edit_changes_one_supervoxel_and_every_count(scene):
    _, labels, segments = scene
    correction = correction_of(scene)
    correction.compare_with(labels)
    edit = correction.give([20], 1)
    expected = labels.copy()
    expected[segments == 20] = 1
    np.testing.assert_array_equal(correction.labels, expected)
    assert edit.text == "supervoxel 20: CSF"
    for row in correction.rows():
        assert row.voxels == (expected == row.label).sum()
        assert row.ml == pytest.approx(0.002 * row.voxels)
        assert row.share == pytest.approx(row.voxels / (expected > 0).sum())
        assert row.dice == pytest.approx(dice(expected == row.label, labels == row.label))
    assert correction.give([20], 1) is None, "what changes nothing is no edit"
    assert correction.edits == 1


def test_a_hundred_random_edits_are_undone_bit_for_bit_and_done_again(scene):
    _, labels, segments = scene
    rng = np.random.default_rng(1)
    correction = correction_of(scene)
    correction.compare_with(np.roll(labels, 1, axis=0))
    states = [labels.copy()]
    while correction.edits < 100:
        kind, label = rng.integers(4), int(rng.integers(4))
        if kind == 0:
            correction.give(list(rng.integers(0, segments.max() + 1, 3)), label)
        elif kind == 1:
            correction.labels.reshape(-1)[rng.integers(0, labels.size, 40)] = label
            correction.take_over()
        elif kind == 2:
            correction.fill(tuple(rng.integers(0, SHAPE)), label)
        else:
            correction.revert(list(rng.integers(0, segments.max() + 1, 30)))
        if correction.edits == len(states):
            states.append(correction.labels.copy())
    for state in states[-2::-1]:
        correction.undo()
        np.testing.assert_array_equal(correction.labels, state)
    assert correction.undo() is None
    for state in states[1:]:
        correction.redo()
        np.testing.assert_array_equal(correction.labels, state)
    assert correction.redo() is None
    for row in correction.rows():
        assert row.voxels == (correction.labels == row.label).sum()
        assert row.dice == pytest.approx(dice(correction.labels == row.label, correction.reference == row.label))


def test_a_new_edit_ends_what_could_be_done_again(scene):
    correction = correction_of(scene)
    correction.give([1], 1)
    correction.undo()
    correction.give([2], 1)
    assert correction.redo() is None


def test_fill_takes_the_connected_part(scene):
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[0:2], labels[4:] = 2, 2
    correction = Correction(labels, NAMES, 1.0, None)
    correction.fill((5, 0, 0), 3)
    assert (correction.labels[4:] == 3).all()
    assert (correction.labels[:2] == 2).all()


def test_the_ceiling_is_the_oracles(scene):
    _, labels, segments = scene
    correction = correction_of(scene)
    assert correction.ceiling() is None
    correction.compare_with(labels)
    best = oracle_labels(segments, labels, 4)
    for label, name in list(NAMES.items())[1:]:
        assert correction.ceiling()[name] == pytest.approx(dice(best == label, labels == label))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda c: c.give([0], 9), "knows no label 9"),
        (lambda c: c.compare_with(np.zeros((2, 2, 2), int)), "has the shape"),
        (lambda c: c.compare_with(np.full(SHAPE, 7)), "holds the labels 7"),
        (lambda c: Correction(c.labels.T, NAMES, 1.0, None), "contiguous"),
        (lambda c: Correction(c.labels, NAMES, 1.0, None).give([0], 1), "no supervoxels"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(scene, act, words):
    with pytest.raises(UsageError, match=words):
        act(correction_of(scene))


@pytest.fixture
def shown(scene):
    image = scene[0].astype(np.float32)
    return Shown(Volume(np.ascontiguousarray(image.T), Geometry(image.T.shape, np.eye(4))), turned=False)


def begin(shown, scene):
    image, labels, segments = scene
    about = About(fingerprint(shown.volume), "test", "0" * 64, NAMES, 0.9, (), 1.0)
    stored = SegmentationSession.begin_with(
        shown, about, {"labels": labels, "segments": segments, "uncertainty": np.linspace(0, 1, segments.max() + 1)}
    )
    np.testing.assert_array_equal(shown.show(shown.volume.array), image)
    return stored


def edits_file(session):
    (path,) = session.journal.folder.glob("edits-*.jsonl")
    return path


def test_a_crash_loses_no_edit(shown, scene):
    assert stored_session(fingerprint(shown.volume)) is None
    session = begin(shown, scene)
    assert stored_session(fingerprint(shown.volume)) is None, "without an edit there is nothing to go on with"
    session.give([5, 6], 1)
    session.give([7], 3)
    session.correction.labels.reshape(-1)[4000:4020] = 2
    session.take_over()
    session.undo()
    session.redo()
    session.fill((15, 16, 14), 1)
    session.revert([5])
    session.undo()
    # what a killed process leaves: the files as they are, and perhaps half a line
    with edits_file(session).open("a") as file:
        file.write('\n{"do":"give","ids":[1')
    journal, found = stored_session(fingerprint(shown.volume))
    again = SegmentationSession.resume(shown, journal, found)
    np.testing.assert_array_equal(again.correction.labels, session.correction.labels)
    assert again.correction.edits == session.correction.edits == 4
    assert [each.text for each in again.correction.history.done] == [
        each.text for each in session.correction.history.done
    ]
    assert again.about == session.about
    # and it goes on
    again.give([9], 1)
    np.testing.assert_array_equal(
        SegmentationSession.resume(shown, *stored_session(fingerprint(shown.volume))).correction.labels,
        again.correction.labels,
    )


def test_a_journal_of_another_scan_or_a_damaged_one_is_not_offered(shown, scene):
    session = begin(shown, scene)
    session.give([5], 1)
    other = Shown(Volume(shown.volume.array + 1, shown.volume.geometry), turned=False)
    assert stored_session(fingerprint(other.volume)) is None
    (result,) = session.journal.folder.glob("*.npz")
    whole = result.read_bytes()
    for damaged in (b"no archive", whole[: len(whole) // 2], whole[:-1], b""):
        result.write_bytes(damaged)
        assert stored_session(fingerprint(shown.volume)) is None
    result.write_bytes(whole)
    assert stored_session(fingerprint(shown.volume)) is not None


def test_a_correction_that_cannot_be_kept_is_taken_back(shown, scene):
    """On a full disk the labels stay what the journal says, and the correction can be made again."""
    session = begin(shown, scene)
    session.give([5], 1)
    session.give([6], 1)
    session.undo()
    kept, edits = session.correction.labels.copy(), edits_file(session)
    aside = edits.rename(edits.with_name("aside"))
    edits.symlink_to("/dev/full")
    for act in (
        lambda: session.give([7], 3),
        lambda: session.fill((15, 16, 14), 1),
        lambda: session.revert([5]),
        session.undo,
    ):
        with pytest.raises(ResourceError, match=r"taken back.*No space left"):
            act()
        np.testing.assert_array_equal(session.correction.labels, kept)
        assert session.correction.edits == 1
    session.correction.labels.reshape(-1)[4000:4020] = 2
    with pytest.raises(ResourceError, match="taken back"):
        session.take_over()
    np.testing.assert_array_equal(session.correction.labels, kept)
    assert session.redo() is None, "there is nothing that the journal does not know"

    edits.unlink()
    aside.rename(edits)
    session.give([7], 3)
    again = SegmentationSession.resume(shown, *stored_session(fingerprint(shown.volume)))
    np.testing.assert_array_equal(again.correction.labels, session.correction.labels)


def test_a_new_result_that_cannot_be_stored_leaves_the_old_one_with_its_edits(shown, scene):
    session = begin(shown, scene)
    session.give([5], 1)
    new = replace(session.about, started=2.0)
    (session.journal.folder / "edits-2.000.jsonl").symlink_to("/dev/full/no")
    with pytest.raises(ResourceError, match="cannot be kept"):
        SegmentationSession.begin_with(shown, new, {"labels": scene[1]})
    _, found = stored_session(fingerprint(shown.volume))
    assert found.about == session.about
    assert len(found.lines) == 1


def test_a_line_that_means_nothing_is_refused(shown, scene):
    session = begin(shown, scene)
    session.journal.note("conjure", label=3)
    with pytest.raises(InputError, match="conjure"):
        SegmentationSession.resume(shown, *stored_session(fingerprint(shown.volume)))


def test_a_new_result_replaces_the_journal(shown, scene):
    begin(shown, scene).give([5], 1)
    begin(shown, scene)
    assert stored_session(fingerprint(shown.volume)) is None
    assert (
        json.loads((Journal(begin(shown, scene).journal.folder).folder / "about.json").read_text(encoding="utf-8"))[
            "model"
        ]
        == "test"
    )


def test_doubtful_regions_come_in_order_and_begin_again(shown, scene):
    session = begin(shown, scene)
    count = len(session.correction.regions)
    asked = [session.next_doubtful() for _ in range(count)]
    assert asked == list(range(count))[::-1]
    assert session.next_doubtful() == count - 1
