"""A prepared dataset read back: sections, folds, absolute names, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "scans").mkdir()

    def case(name: str, **more: Any) -> dict[str, Any]:
        return {"case": name, "image": [f"{name}_0.nii", f"{name}_1.nii"], "label": f"{name}.nii", **more}

    return {
        "name": "scans",
        "root": str(tmp_path / "scans"),
        "channels": ["T1", "T2"],
        "labels": {"lesion": 4, "background": 0, "ventricle": 2},
        "seed": 3,
        "holdout": 0.2,
        "folds": 2,
        "fingerprint": "abc",
        "training": [case("a", fold=0), case("b", fold=1), case("c", fold=0, mask="c_mask.nii")],
        "test": [case("d")],
    }


def write(tmp_path: Path, content: Any) -> Path:
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_labels_are_sorted_by_value_and_structures_leave_the_background_out(tmp_path: Path, content: dict) -> None:
    dataset = Dataset.load(write(tmp_path, content))
    assert list(dataset.labels.items()) == [("background", 0), ("ventricle", 2), ("lesion", 4)]
    assert dataset.label_values == (0, 2, 4)
    assert dataset.structures == ("ventricle", "lesion")
    assert dataset.channels == ("T1", "T2")
    assert (dataset.seed, dataset.holdout, dataset.folds, dataset.fingerprint) == (3, 0.2, 2, "abc")


def test_folder_and_file_load_the_same(tmp_path: Path, content: dict) -> None:
    write(tmp_path, content)
    assert Dataset.load(tmp_path) == Dataset.load(tmp_path / "dataset.json")


@pytest.mark.parametrize(
    ("section", "fold", "names"),
    [
        ("training", 0, "abc"),
        ("train", 0, "b"),
        ("validation", 0, "ac"),
        ("train", 1, "ac"),
        ("validation", 1, "b"),
        ("train", "all", "abc"),
        ("validation", "all", ""),
        ("test", "all", "d"),
        ("test", 0, "d"),
    ],
)
def test_sections(tmp_path: Path, content: dict, section: str, fold: int | str, names: str) -> None:
    cases = Dataset.load(write(tmp_path, content)).section(section, fold=fold)
    assert "".join(case["case"] for case in cases) == names


def test_file_names_are_absolute(tmp_path: Path, content: dict) -> None:
    case = Dataset.load(write(tmp_path, content)).section("training")[2]
    root = tmp_path / "scans"
    assert case["image"] == [str(root / "c_0.nii"), str(root / "c_1.nii")]
    assert (case["label"], case["mask"]) == (str(root / "c.nii"), str(root / "c_mask.nii"))


def test_a_relative_root_is_found_from_the_file(tmp_path: Path, content: dict) -> None:
    content["root"] = "scans"
    assert Dataset.load(write(tmp_path, content)).root == tmp_path / "scans"


def test_with_one_fold_the_same_cases_train_and_validate(tmp_path: Path, content: dict) -> None:
    content["folds"] = 1
    for case in content["training"]:
        case["fold"] = 0
    dataset = Dataset.load(write(tmp_path, content))
    assert dataset.section("train") == dataset.section("validation") == dataset.section("training")


@pytest.mark.parametrize(
    ("section", "fold", "message"),
    [("tests", 0, "did you mean 'test'"), ("train", 2, "has folds 0 to 1"), ("validation", -1, "has folds 0 to 1")],
)
def test_wrong_sections_and_folds(tmp_path: Path, content: dict, section: str, fold: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Dataset.load(write(tmp_path, content)).section(section, fold=fold)


def test_a_source_that_was_not_prepared_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"not a prepared dataset .* rarevox prepare"):
        Dataset.load(tmp_path)
    write(tmp_path, {"labels": {"0": "background", "1": "Liver"}, "training": []})  # a Decathlon dataset.json
    with pytest.raises(RequestError, match="was not written by rarevox prepare"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "gone"}, 'has moved: .*gone does not exist; correct "root"'),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "every value once"),
        ({"labels": {"a": 1}}, '"background": 0'),
        ({"labels": {"background": 0, "a": "one"}}, "a whole number"),
        ({"training": [{"case": "a", "image": "a.nii"}]}, r'"training"\[0\].* lacks fold, label'),
    ],
)
def test_damaged_content_is_refused(tmp_path: Path, content: dict, change: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Dataset.load(write(tmp_path, {**content, **change}))


def test_text_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(RequestError, match="not valid JSON"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root", 3),
        ("root", "a\0b"),
        ("channels", "T1"),
        ("channels", []),
        ("channels", [1, 2]),
        ("labels", ["lesion"]),
        ("training", {"a": 1}),
        ("training", [3]),
        ("test", None),
        ("folds", "2"),
        ("folds", 0),
        ("folds", 10**400),
        ("seed", [1]),
        ("holdout", {}),
        ("name", 7),
        ("n4", "yes"),
    ],
    ids=str,
)
def test_another_form_is_one_sentence(tmp_path: Path, content: dict, key: str, value: object) -> None:
    with pytest.raises(RequestError, match=f'"{key}" in .*dataset.json is .*; expected'):
        Dataset.load(write(tmp_path, content | {key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [("case", 3), ("image", 3), ("image", []), ("image", [3]), ("label", ["a"]), ("mask", 3), ("fold", "0")],
    ids=str,
)
def test_another_form_of_a_case_is_one_sentence(tmp_path: Path, content: dict, key: str, value: object) -> None:
    content["training"][1][key] = value
    with pytest.raises(RequestError, match=rf'"{key}" in "training"\[1\] in .*dataset.json is .*; expected'):
        Dataset.load(write(tmp_path, content))


def test_two_cases_of_one_name_would_write_one_file(tmp_path: Path, content: dict) -> None:
    content["training"][1]["case"] = "a"
    with pytest.raises(RequestError, match="'a', is that of an earlier case"):
        Dataset.load(write(tmp_path, content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 40), JSON), min_size=1, max_size=3))
def test_whatever_stands_in_the_file_is_a_dataset_or_one_sentence(
    tmp_path: Path, content: dict, changes: list[tuple[int, Any]]
) -> None:
    """Values replaced anywhere: at the top, in a case, in a list."""
    changed = json.loads(json.dumps(content))
    for number, value in changes:
        places = [(changed, key) for key in changed]
        places += [(case, key) for part in ("training", "test") for case in _rows(changed, part) for key in case]
        inner, key = places[number % len(places)]
        inner[key] = value
    try:
        dataset = Dataset.load(write(tmp_path, changed))
    except RequestError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(case["label"], str) for case in dataset.section("training"))


def _rows(content: dict[str, Any], part: str) -> list[dict[str, Any]]:
    rows = content.get(part)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
