"""Splits that are given: followed as they stand, and refused where they leak."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cases import Case, Source
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.preparation.split import SplitItem
from rarevox.pipeline.preparation.stated_split import TRAINING, follow_split, read_split, split_leaks, with_split
from tests.pipeline.preparation.test_prepare import decathlon, written


def case(name: str, part: str, subject: str = "") -> Case:
    return Case(name, (Path(f"{name}.nii"),), Path(f"{name}_label.nii"), None, subject or name, part)


def items(*names: str, subjects: dict[str, str] | None = None) -> list[SplitItem]:
    return [SplitItem(name, (subjects or {}).get(name, name), 1.0, frozenset({1})) for name in names]


class TestFollow:
    def test_every_case_goes_where_it_was_put(self) -> None:
        parts = {"a": "test", "b": "0", "c": "1", "d": "1"}
        split = follow_split(items("a", "b", "c", "d"), parts, folds=5, seed=0)
        assert (split.test, split.fold, split.folds) == (("a",), {"b": 0, "c": 1, "d": 1}, 2)

    def test_free_cases_go_to_their_subject_s_fold_or_are_dealt(self) -> None:
        parts = {"a": "0", "b": "1", "c": "training", "d": "training"}
        split = follow_split(items("a", "b", "c", "d", subjects={"b": "s", "c": "s"}), parts, folds=5, seed=0)
        assert split.fold["c"] == split.fold["b"] == 1
        assert split.fold["d"] in (0, 1)

    def test_a_single_stated_set_validates_and_all_others_train(self) -> None:
        parts = {"a": "0", "b": "training", "c": "training", "d": "training"}
        split = follow_split(items(*"abcd", subjects={"a": "s", "b": "s"}), parts, folds=5, seed=0)
        assert (split.fold, split.folds) == ({"a": 0, "b": 0, "c": 1, "d": 1}, 2)
        assert follow_split(items("a", "b"), {"a": "0", "b": "0"}, folds=5, seed=0).folds == 1

    def test_only_the_test_section_is_stated(self) -> None:
        parts = {"a": "test"} | dict.fromkeys("bcde", "training")
        split = follow_split(items(*"abcde"), parts, folds=2, seed=0)
        assert split.test == ("a",)
        assert sorted(split.fold.values()) == [0, 0, 1, 1]

    @pytest.mark.parametrize(
        ("parts", "message"),
        [({"a": "0", "b": "2"}, r"folds \[0, 2\]"), ({"a": "test", "b": "test"}, "no case for training")],
    )
    def test_what_cannot_be_followed(self, parts: dict[str, str], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            follow_split(items("a", "b"), parts, folds=5, seed=0)


class TestFiles:
    def test_an_earlier_dataset(self, tmp_path: Path) -> None:
        content = {"training": [{"case": "a", "fold": 1}], "test": [{"case": "b"}]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        assert read_split(tmp_path / "dataset.json") == {"a": "1", "b": "test"}

    def test_nnunet_s_splits(self, tmp_path: Path) -> None:
        folds = [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]
        (tmp_path / "splits_final.json").write_text(json.dumps(folds))
        assert read_split(tmp_path / "splits_final.json") == {"a": "0", "b": "1"}

    def test_of_a_single_split_of_nnunet_s_what_trains_is_no_validation(self, tmp_path: Path) -> None:
        (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["b", "c"], "val": ["a"]}]))
        assert read_split(tmp_path / "splits_final.json") == {"a": "0", "b": "1", "c": "1"}

        (tmp_path / "splits_final.json").write_text('[{"val": ["a"]}]')
        source = Source("n", tmp_path, None, None, (case("a", ""), case("b", "")))
        assert [one.part for one in with_split(source, tmp_path / "splits_final.json").cases] == ["0", TRAINING]

    def test_what_a_single_split_does_not_name_trains_but_for_scans_of_who_validates(self, tmp_path: Path) -> None:
        (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["b"], "val": ["a"]}]))
        cases = (case("a", "", "s"), case("b", ""), case("c", ""), case("d", "", "s"))
        found = with_split(Source("n", tmp_path, None, None, cases), tmp_path / "splits_final.json")
        assert [one.part for one in found.cases] == ["0", "1", "1", "0"]

    def test_what_trains_in_every_split_validates_in_none_of_them(self, tmp_path: Path) -> None:
        """One fold more: the others are nnU-Net's own, to the case."""
        folds = [{"train": ["b", "x", "y"], "val": ["a"]}, {"train": ["a", "x", "y"], "val": ["b"]}]
        (tmp_path / "splits_final.json").write_text(json.dumps(folds))
        parts = read_split(tmp_path / "splits_final.json")
        assert parts == {"a": "0", "b": "1", "x": "2", "y": "2"}
        found = follow_split(items(*"abxy"), parts, folds=5, seed=0)
        for number, fold in enumerate(folds):
            assert sorted(name for name, own in found.fold.items() if own == number) == fold["val"]
            assert sorted(name for name, own in found.fold.items() if own != number) == fold["train"]

    def test_a_case_that_is_kept_out_of_a_split_is_refused(self, tmp_path: Path) -> None:
        """It would train there: ``a_2`` is of who validates."""
        folds = [{"train": ["b"], "val": ["a"]}, {"train": ["a", "a_2"], "val": ["b"]}]
        (tmp_path / "splits_final.json").write_text(json.dumps(folds))
        with pytest.raises(RequestError, match="leaves a_2 out of split 0"):
            read_split(tmp_path / "splits_final.json")

    def test_a_case_that_validates_twice_is_refused(self, tmp_path: Path) -> None:
        folds = [{"train": ["b"], "val": ["a", "c"]}, {"train": ["a"], "val": ["b", "c"]}]
        (tmp_path / "splits_final.json").write_text(json.dumps(folds))
        with pytest.raises(RequestError, match="validates on c in the splits 0 and 1; expected each case in one"):
            read_split(tmp_path / "splits_final.json")

    def test_what_a_dataset_of_one_fold_does_not_name_is_in_it_too(self, tmp_path: Path) -> None:
        content = {"training": [{"case": "a", "fold": 0}], "test": [{"case": "b"}]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        source = Source("n", tmp_path, None, None, tuple(case(name, "") for name in "abc"))
        assert [one.part for one in with_split(source, tmp_path / "dataset.json").cases] == ["0", "test", "0"]

    @pytest.mark.parametrize("content", ["{}", "3", '[{"train": []}]', '{"training": ["a"], "test": []}'])
    def test_something_else(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(RequestError, match="holds no split"):
            read_split(tmp_path / "x.json")

    def test_a_split_of_other_cases(self, tmp_path: Path) -> None:
        (tmp_path / "s.json").write_text('[{"val": ["x"]}]')
        source = Source("n", tmp_path, None, None, (case("a", ""),))
        with pytest.raises(RequestError, match="no case of .* it names x"):
            with_split(source, tmp_path / "s.json")
        assert with_split(source, None) is source


class TestLeaks:
    def test_no_leak_within_a_side_or_without_a_stated_split(self) -> None:
        cases = [case("a", "0", "s"), case("b", "0", "s"), case("c", "test")]
        assert split_leaks(cases, [("a", "b", 1.0)]) == []
        free = [replace(one, part="") for one in cases]
        assert split_leaks(free, [("a", "c", 1.0)]) == []

    def test_a_subject_on_two_sides_is_laid_at_the_training_case(self) -> None:
        (fault,) = split_leaks([case("a", "0", "s"), case("b", "test", "s")], [])
        assert (fault.case, fault.check, fault.severity) == ("a", "subject-across-split", "error")
        assert fault.message == "subject s is in fold 0 and, as b, in the test section"

    def test_a_case_for_any_fold_goes_with_every_fold_but_not_with_the_test_section(self) -> None:
        """A new scan of a subject whose other scan is held out must not be trained on."""
        (fault,) = split_leaks([case("new", TRAINING, "s"), case("old", "test", "s")], [])
        assert (fault.case, fault.check) == ("new", "subject-across-split")
        assert fault.message == "subject s is in the training section and, as old, in the test section"
        (fault,) = split_leaks([case("new", TRAINING), case("old", "test")], [("new", "old", 1.0)])
        assert (fault.case, fault.check) == ("new", "duplicate-across-split")
        assert split_leaks([case("new", TRAINING, "s"), case("old", "1", "s")], [("new", "old", 1.0)]) == []

    def test_a_copy_on_two_sides(self) -> None:
        (fault,) = split_leaks([case("a", "test"), case("b", "1"), case("c", "1")], [("b", "a", 0.97), ("b", "c", 1.0)])
        assert (fault.case, fault.check, fault.severity) == ("b", "duplicate-across-split", "error")
        assert "as a, in the test section (correlation 0.970)" in fault.message


def test_a_table_states_the_split_and_its_leaks_are_errors(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 6)
    twin = (task / "imagesTr" / "c00.nii.gz").read_bytes()
    (task / "imagesTr" / "c04.nii.gz").write_bytes(twin)
    rows = [
        f"imagesTr/c{n:02}.nii.gz,labelsTr/c{n:02}.nii.gz,{subject},{part}"
        for n, (subject, part) in enumerate(
            [("A", "test"), ("B", "0"), ("C", "1"), ("A", "1"), ("D", "0"), ("E", "training")]
        )
    ]
    (task / "list.csv").write_text("\n".join(["image,label,subject,split", *rows]))
    assert prepare(task / "list.csv", tmp_path / "out", skip_faulty=True) == 1
    found = {(row["case"], row["check"]) for row in written(tmp_path / "out", "rejected.json")["faults"]}
    assert found == {
        ("c03", "subject-across-split"),
        ("c04", "duplicate-across-split"),
        ("c04", "duplicate-content"),
    }
    content = written(tmp_path / "out", "dataset.json")
    assert [row["case"] for row in content["test"]] == ["c00"]
    folds = {row["case"]: row["fold"] for row in content["training"]}
    assert (folds["c01"], folds["c02"], set(folds)) == (0, 1, {"c01", "c02", "c05"})


def test_prepare_follows_the_split_of_an_earlier_dataset(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 9)
    prepare(task, tmp_path / "a", seed=3, holdout=0.3, folds=3)
    prepare(task, tmp_path / "b", seed=8, split=tmp_path / "a" / "dataset.json")
    for section in ("training", "test"):
        assert written(tmp_path / "a", "dataset.json")[section] == written(tmp_path / "b", "dataset.json")[section]


def test_a_word_that_is_no_part(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,label,split\na.nii,b.nii,maybe\n")
    with pytest.raises(RequestError, match=r"row 1 of .* says split 'maybe'; expected test, training or the number"):
        prepare(tmp_path / "list.csv", tmp_path / "out")
