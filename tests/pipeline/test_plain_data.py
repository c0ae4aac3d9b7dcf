from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline import plain_data
from rarevox.pipeline.compose import CONFIGS
from rarevox.pipeline.entries import parse_setting
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.plain_data import DEEPEST, parse_json, parse_yaml, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000, "nested deeper than 64"),
        ("a: " + "{b: " * 5000, "nested deeper than 64"),
        ("\n".join(f"{' ' * n}a:" for n in range(900)), "nested deeper than 64"),
        (LAUGHS, "more than 100000 values"),
        ("a: &a [*a]", "stands within what it stands for"),
        ("a: *b", "not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("{a", "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
    ],
)
def test_yaml_beyond_the_bounds_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RequestError, match=said) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_alias_counts_as_all_that_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mapping, its two keys, two lists of a node and two values: 1 + 2 + 3 + 3 = 9."""
    monkeypatch.setattr(plain_data, "MOST_NODES", 9)
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
    monkeypatch.setattr(plain_data, "MOST_NODES", 8)
    with pytest.raises(ValueError, match="more than 8 values"):
        parse_yaml("a: &a [1, 2]\nb: *a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper than 64"),
        ("[" * 70 + "]" * 70, "nested deeper than 64"),
        ("9" * 5000, "not valid JSON"),
        ('{"a": ', "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_json_beyond_the_bounds_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RequestError, match=said) as caught:
        read_json(tmp_path / "x.json")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_deepest_that_is_read() -> None:
    """``DEEPEST`` lists within one another, and one more."""
    for parse in (parse_yaml, parse_json):
        parse("[" * DEEPEST + "]" * DEEPEST)
        with pytest.raises(ValueError, match="deeper"):
            parse("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))


def test_a_pipe_or_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(RequestError, match="a pipe"):
        read_yaml(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("a: 1")
    monkeypatch.setattr(plain_data, "LARGEST_YAML", 3)
    with pytest.raises(RequestError, match="holds 4 bytes; such a file may have 3"):
        read_yaml(tmp_path / "large.yaml")


def test_a_setting_is_read_within_the_same_bounds() -> None:
    with pytest.raises(RequestError, match="not valid YAML"):
        parse_setting("a=" + "[" * 5000)


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_packaged_is_read_as_the_safe_loader_reads_it(file: Path) -> None:
    assert read_yaml(file) == yaml.safe_load(file.read_text(encoding="utf-8"))


@given(PLAIN)
def test_plain_data_comes_back(content: object) -> None:
    assert parse_json(json.dumps(content)) == content
    assert parse_yaml(yaml.safe_dump(content)) == content
