"""Folds: a partition that keeps subjects together, the same everywhere, and refused when it does not fit."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxpool.data import Case, Fold, check_folds, make_folds, read_folds, write_folds
from voxpool.errors import InputError, UsageError


def make_cases(subjects, ids=None):
    ids = ids or [f"c{number:03}" for number in range(len(subjects))]
    return [Case(case_id, (), None, subject) for case_id, subject in zip(ids, subjects, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    subjects=st.lists(st.sampled_from([f"s{i}" for i in range(12)]), min_size=2, max_size=40),
    k=st.integers(2, 6),
    seed=st.integers(0, 2**32),
)
def test_folds_are_a_partition_that_keeps_subjects_together(subjects, k, seed):
    cases = make_cases(subjects)
    if len(set(subjects)) < k:
        with pytest.raises(InputError, match="E129"):
            make_folds(cases, k, seed=seed)
        return
    folds = make_folds(cases, k, seed=seed)
    ids = [case.id for case in cases]
    assert sorted(i for fold in folds for i in fold.test) == ids
    by_id = dict(zip(ids, subjects, strict=True))
    for fold in folds:
        assert sorted(fold.train + fold.test) == ids
        assert not {by_id[i] for i in fold.train} & {by_id[i] for i in fold.test}
        assert list(fold.train) == sorted(fold.train)  # the order of the cases
    sizes = [len(fold.test) for fold in folds]
    assert min(sizes) > 0
    assert max(sizes) - min(sizes) <= max(Counter(subjects).values())
    check_folds(folds, cases)
    assert folds == make_folds(cases, k, seed=seed)


@settings(max_examples=50, deadline=None)
@given(k=st.integers(2, 10), more=st.integers(0, 40), seed=st.integers(0, 1000))
def test_single_cases_give_folds_of_equal_size(k, more, seed):
    n = k + more
    sizes = [len(fold.test) for fold in make_folds(make_cases([f"s{i}" for i in range(n)]), k, seed=seed)]
    assert max(sizes) - min(sizes) <= 1


def test_the_split_is_the_same_on_every_machine():
    """Written down once: a change of this split would change every published result."""
    folds = make_folds([Case(f"IBSR_{i:02}", (), None, f"IBSR_{i:02}") for i in range(1, 10)], 3, seed=0)
    assert [[i[-2:] for i in fold.test] for fold in folds] == [
        ["01", "04", "05"],
        ["02", "06", "07"],
        ["03", "08", "09"],
    ]


def test_the_order_of_the_cases_does_not_matter():
    cases = make_cases([f"s{i % 9}" for i in range(20)])
    shuffled = random.Random(1).sample(cases, len(cases))
    wanted = [set(fold.test) for fold in make_folds(cases, 4, seed=5)]
    assert [set(fold.test) for fold in make_folds(shuffled, 4, seed=5)] == wanted


def test_seeds_give_different_splits():
    cases = make_cases([f"s{i}" for i in range(12)])
    assert len({tuple(fold.test for fold in make_folds(cases, 3, seed=seed)) for seed in range(20)}) > 15


def test_without_groups_a_subject_may_be_on_both_sides():
    cases = make_cases(["ann"] * 6)
    folds = make_folds(cases, 3, group_by=None)
    assert [len(fold.test) for fold in folds] == [2, 2, 2]
    with pytest.raises(InputError, match=r"trains and tests on the same subjects: ann.*E126"):
        check_folds(folds, cases)


def test_too_few_cases_or_subjects():
    with pytest.raises(InputError, match=r"3 folds need at least 3 cases, found 2; ask for fewer folds.*E129"):
        make_folds(make_cases(["a", "b"]), 3)
    with pytest.raises(InputError, match="3 folds need at least 3 subjects, found 2"):
        make_folds(make_cases(["a", "a", "b", "b"]), 3)
    with pytest.raises(UsageError, match="2 folds or more, got 1"):
        make_folds(make_cases(["a", "b"]), 1)
    with pytest.raises(UsageError, match="group_by"):
        make_folds(make_cases(["a", "b"]), 2, group_by="site")
    twice = make_cases(["a", "b", "c"], ["c000", "c001", "c000"])
    with pytest.raises(InputError, match=r"'c000' occurs more than once.*E127"):
        make_folds(twice, 2)


def test_folds_on_disk_are_those_of_nnunet(tmp_path):
    folds = make_folds(make_cases([f"s{i}" for i in range(7)]), 3)
    write_folds(tmp_path / "folds.json", folds)
    content = json.loads((tmp_path / "folds.json").read_text(encoding="utf-8"))
    assert [set(entry) for entry in content] == [{"train", "val"}] * 3
    assert content[1]["val"] == list(folds[1].test)
    assert read_folds(tmp_path / "folds.json") == folds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no list of folds"),
        ("{}", "holds no list of folds"),
        ('[{"train": ["a"]}]', "fold 0 has another form"),
        ('[{"train": ["a"], "val": "b"}]', "fold 0 has another form"),
        ('[{"train": ["a"], "val": ["b"]}, {"train": [1], "val": ["b"]}]', "fold 1 has another form"),
        ("[[]]", "fold 0 has another form"),
    ],
)
def test_fold_files_of_another_form(tmp_path, text, found):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match=f"{found}.*E128"):
        read_folds(tmp_path / "f.json")


def test_a_fold_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"f\.json: cannot be read"):
        read_folds(tmp_path / "f.json")


@pytest.mark.parametrize(
    ("folds", "found"),
    [
        ([Fold(("b", "c"), ("a",))], "2 folds or more, the split has 1"),
        ([(["b"], ["a"])] * 3 + [(["a"], ["b"])], "4 folds need at least 4 cases, found 3"),
        ([(["b", "c9"], ["a", "c"]), (["a", "c"], ["b"])], "fold 0 names unknown train cases: c9"),
        ([(["b", "c"], ["a"]), (["a"], ["b", "x"])], "fold 1 names unknown test cases: x"),
        ([(["b"], ["a", "c"]), (["a"], ["b", "c"])], r"case c is held out by folds \[0, 1\]"),
        ([(["b", "c"], ["a"]), (["a"], ["b"])], "no fold holds out c"),
        ([(["a", "b", "c"], ["a", "b"]), (["a"], ["c"])], "trains and tests on the same subjects: s0, s1"),
        ([([], ["a", "b"]), (["a"], ["c"])], "fold 0 has no train case"),
        ([(["b"], []), (["b"], ["a", "c"])], "fold 0 has no test case"),
        ([(["b", "b"], ["a", "c"]), (["a"], ["b"])], "fold 0 names train cases twice: b"),
    ],
)
def test_folds_that_do_not_fit_the_cases(folds, found):
    folds = [fold if isinstance(fold, Fold) else Fold(*map(tuple, fold)) for fold in folds]
    with pytest.raises(InputError, match=found):
        check_folds(folds, make_cases(["s0", "s1", "s2"], "abc"))


def test_the_same_subject_under_two_ids():
    cases = make_cases(["ann", "bob", "ann", "cleo"], "abcd")
    folds = [Fold(("a", "b"), ("c", "d")), Fold(("c", "d"), ("a", "b"))]
    with pytest.raises(InputError, match="fold 0 trains and tests on the same subjects: ann"):
        check_folds(folds, cases)


def test_large_subjects_are_dealt_first():
    cases = make_cases(["ann"] * 4 + ["bob"] * 2 + ["cleo"] * 2)
    for seed in range(10):
        assert [len(fold.test) for fold in make_folds(cases, 2, seed=seed)] == [4, 4]
