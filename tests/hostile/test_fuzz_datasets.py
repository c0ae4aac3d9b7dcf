"""Datasets and sources changed at any place and depth: one sentence, or a configuration that is data and no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarevox.pipeline.compose import compose, derive
from rarevox.pipeline.data.dataset import SECTIONS, Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.sources.find import find_cases
from rarevox.pipeline.training.plain_values import check_values
from rarevox.pipeline.trust.gate import require_ours

TEXTS = ["", ".", "..", "../x", "/etc/passwd", "$1", "$__import__('os').getpid()", "@seed", "%seed", "a#b", "a::b"]
TEXTS += ["a\x1b[2J", "a\0b", "x" * 300, "ü", "\ud800", "_target_", "os.system", "nan", "1e400", "background", "null"]
NUMBERS = [0, 1, -1, 3, 255, 2**31, 2**63, 10**400, 0.5, 1e300, float("nan"), float("inf"), True, None]
VALUES = st.recursive(
    st.sampled_from([*TEXTS, *NUMBERS]) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["_target_", "_mode_", "a", *TEXTS]), inner, max_size=3)
        | st.sampled_from([json.loads("[" * 70 + "]" * 70), [], {}])
    ),
    max_leaves=5,
)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "add", "remove", "rename"]), VALUES))
DAMAGE = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=2)
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every mapping and list within a value, with each of its keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, part in inner:
        found += [(value, key), *places(part)]
    return found


def changed(content: Any, changes: list[tuple[int, str, Any]]) -> Any:
    content = json.loads(json.dumps(content))
    for number, how, drawn in changes:
        value = deepcopy(drawn)
        there = places(content)
        if not there:
            break
        place, key = there[number % len(there)]
        if how == "remove":
            del place[key]
        elif how == "add" and isinstance(place, list):
            place.insert(key, value)
        elif how in ("add", "rename") and isinstance(place, dict):
            place[str(value)] = place.pop(key) if how == "rename" else value
        else:
            place[key] = value
    return content


def written(file: Path, content: Any, damage: list[tuple[int, int]]) -> None:
    data = bytearray(json.dumps(content).encode())
    for place, value in damage:
        data[place % len(data)] = value
    file.write_bytes(data)


def told(call: Callable[[], Any]) -> Any:
    """What a call gives, or None after one sentence; another exception escapes."""
    try:
        return call()
    except RequestError as error:
        assert "\n" not in str(error) and len(str(error)) < 4000
        assert "Error" not in str(error).replace("RequestError", "")
        return None


@pytest.fixture
def prepared(dataset_dir: Path, tmp_path: Path) -> Path:
    for name in ("dataset.json", "fingerprint.json", "plan.yaml"):
        shutil.copy(dataset_dir / name, tmp_path)
    return tmp_path


@FUZZ
@given(which=st.sampled_from(["dataset.json", "fingerprint.json"]), changes=CHANGES, damage=DAMAGE)
def test_any_prepared_dataset(
    which: str, changes: list[tuple[int, str, Any]], damage: list[tuple[int, int]], dataset_dir: Path, prepared: Path
) -> None:
    """What is loaded has safe names, and the configurations made of it pass the gate of runs from elsewhere."""
    for name in ("dataset.json", "fingerprint.json"):
        shutil.copy(dataset_dir / name, prepared)
    content = json.loads((dataset_dir / which).read_text(encoding="utf-8"))
    if which == "fingerprint.json":
        content["per_case"] = content["per_case"][:2]  # of many alike, for the speed of it
    written(prepared / which, changed(content, changes), damage)
    data = told(lambda: Dataset.load(prepared))
    if data is None:
        return
    for section in SECTIONS:
        for case in told(lambda name=section: data.section(name)) or ():
            assert Path(f"{case['case']}_seg.nii.gz").name == f"{case['case']}_seg.nii.gz"
            images = case["image"] if isinstance(case["image"], list) else [case["image"]]
            assert all(isinstance(file, str) for file in (case["label"], *images))
    config = told(lambda: compose("train", dataset=data).config)
    if config is None or told(lambda: check_values(config) or True) is None:
        return
    require_ours(config, "train")
    for stage in ("evaluate", "inference"):
        require_ours(derive(stage, config), stage)


@FUZZ
@given(changes=CHANGES, damage=DAMAGE)
def test_any_source(
    changes: list[tuple[int, str, Any]], damage: list[tuple[int, int]], task_dir: Path, tmp_path: Path
) -> None:
    content = json.loads((task_dir / "dataset.json").read_text(encoding="utf-8"))
    written(tmp_path / "dataset.json", changed(content | {"training": content["training"][:2]}, changes), damage)
    source = told(lambda: find_cases(tmp_path))
    assert source is None or all(isinstance(case.case, str) for case in source.cases)
