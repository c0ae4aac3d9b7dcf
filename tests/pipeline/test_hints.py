"""Plain values against annotations: what is wrong is told by its key, and nothing that the packaged files say is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from rarevox.pipeline.compose import CONFIGS, compose, derive
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.hints import check_hints, fits, taken_by, words
from rarevox.pipeline.training.plain_values import check_values

OPTIONS: list[dict[str, Any]] = [
    *({"network": file.stem} for file in sorted((CONFIGS / "networks").glob("*.yaml"))),
    *({"loss": file.stem} for file in sorted((CONFIGS / "losses").glob("*.yaml"))),
    *({"loss": "dice_ce", "config_files": [file.stem]} for file in sorted((CONFIGS / "tasks").glob("*.yaml"))),
    {"settings": ["spacing=[1,1,1]", "n4=true", "slice_axis=auto", "crop_to_content=true", "minutes=1.5"]},
    {"settings": ["optimizer={_target_: torch.optim.SGD, params: '$@network.parameters()', lr: 1, momentum: 0.9}"]},
    {"settings": ["loss#ignore_index=2", "optimizer#lr=1", "inferer#memory_gb=2", "network_def#activation=prelu"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_the_packaged_files_and_sound_settings_say_fits(options: dict[str, Any]) -> None:
    config = compose("train", **options).config
    for stage in ("train", "evaluate", "inference"):
        check_hints(config if stage == "train" else derive(stage, config))
    check_values(config)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("preprocessing#transforms=3", "preprocessing#transforms is 3; Compose takes a list or"),
        ("preprocessing#transforms#2=7", "preprocessing#transforms#2 is 7; Compose takes an entry with _target_"),
        ("augmentation#transforms=[abc]", "augmentation#transforms#0 is 'abc'; Compose takes"),
        ("augmentation#transforms#5#prob=often", r"augmentation#transforms#5#prob is 'often'; \w+ takes a number"),
        ("optimizer#lr=[1, 2]", r"optimizer#lr is \[1, 2\]; Muon takes a number for lr"),
        ("network_def#width=wide", "network_def#width is 'wide'; HighResNet takes a whole number for width"),
        ("network_def#width=1.5", "network_def#width is 1.5; HighResNet takes a whole number for width"),
        ("precision#name=3", "precision#name is 3; select_precision takes a text for name"),
        ("inferer#overlap=null", "inferer#overlap is None; DenseInferer takes a number"),
        ("planting#count#1=null", "planting#count#1 is None; RandPlantLesionsd takes a whole number for count"),
        ("train#inferer=true", r"train#inferer is True; SupervisedTrainer takes .* \(train#trainer#inferer\)"),
        ("train#data=3", r"train#data is 3; training_cases takes a list for data \(train#cases#data\)"),
        ("train#deterministic_transforms=[]", r"train#deterministic_transforms is \[\]; training_cases takes"),
    ],
)
def test_a_value_of_a_wrong_kind_is_told_by_its_key(setting: str, said: str) -> None:
    with pytest.raises(RequestError, match=f"^{said}"):
        check_hints(compose("train", settings=[setting]).config)


def test_what_is_computed_built_or_not_annotated_is_left() -> None:
    entry = {"_target_": "torch.nn.Dropout", "p": "$1 / 2", "inplace": {"_target_": "builtins.bool"}, "other": "x"}
    check_hints({"a": entry, "b": {"_target_": "no.such.thing", "x": 3}, "c": {"_target_": 3, "x": 3}})


def test_a_reference_in_a_circle_or_to_nothing_is_left_to_whoever_resolves_it() -> None:
    check_hints({"a": "@b", "b": "@a", "c": {"_target_": "torch.nn.Dropout", "p": "@a", "inplace": "@nowhere#1"}})


class Odd(list[int]):
    """A type that is a list by name alone."""


@pytest.mark.parametrize(
    ("value", "hint", "fit"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (1, bool, True),
        (2, bool, False),
        (1.0, int, False),
        ("x", str | None, True),
        (None, str | None, True),
        (None, str, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ([1, 2], Sequence[int], True),
        ([1, "x"], Sequence[int], False),
        ("ab", Sequence[str], True),
        ("ab", Sequence[int], False),
        ("ab", list[str], False),
        ([1, 2], tuple[int, ...], True),
        ([1, 2, 3], tuple[int, int], False),
        ({"a": 1}, Mapping[str, int], True),
        ([1], Mapping[str, int], False),
        ({"a": 1}, Iterable[str], True),
        ({"a": 1}, Sequence[str], False),
        ("image", Hashable, True),
        ([1], Hashable, False),
        (3, Callable[[int], int], False),
        ("@f", Callable[[int], int], True),
        ("a/b", Path, True),
        (3, Path, False),
        (3, Any, True),
        (3, object, True),
        (3, "a text", True),
        (3, Odd, False),
    ],
    ids=str,
)
def test_which_plain_values_a_type_takes(value: object, hint: Any, fit: bool) -> None:
    assert fits(value, hint) is fit
    assert words(hint)


def test_a_default_of_none_may_be_given() -> None:
    """Many a library annotates ``x: int = None``."""
    assert fits(None, taken_by("rarevox.pipeline.data.section")["limit"])
