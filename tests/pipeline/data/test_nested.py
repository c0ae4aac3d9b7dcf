"""Nested regions of a dataset: chains are found, label maps come back, and what is no chain is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.data.composites import labels_and_unions
from rarevox.pipeline.data.nested import by_depth, nested_regions
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.labels import classes_from_values, values_from_classes

BRATS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
UNIONS = {"core": (1, 4), "whole": (1, 2, 4)}


@given(st.lists(st.integers(1, 32000), min_size=2, max_size=6, unique=True), st.randoms())
def test_labels_of_any_values_come_back_from_their_depth(values: list[int], random: object) -> None:
    """From nnU-Net's spelling: each region holds the next, and the label of a depth is that of its ring."""
    regions = {f"region_{k}": tuple(values[k:]) for k in range(len(values))}
    names = list(regions)
    random.shuffle(names)  # type: ignore[attr-defined]
    declared = {name: regions[name] if len(regions[name]) > 1 else regions[name][0] for name in names}
    labels, unions = labels_and_unions(declared)
    found = nested_regions({"background": 0, **labels}, unions)
    assert list(found) == list(regions)
    assert by_depth(found) == [0, *values]
    label_map = torch.from_numpy(np.random.default_rng(0).choice([0, *values], (4, 3, 2)).astype(np.int32))
    depth = classes_from_values(label_map, by_depth(found))
    assert torch.equal(values_from_classes(depth, by_depth(found)).to(torch.int32), label_map)
    for k, held in enumerate(found.values(), start=1):
        assert torch.equal(depth >= k, torch.isin(label_map, torch.tensor(held)))


def test_two_labels_that_both_could_be_innermost_are_named() -> None:
    with pytest.raises(RequestError, match="core, holds necrosis = 1 and enhancing = 4, and which of them"):
        nested_regions(BRATS, UNIONS)
    assert by_depth(nested_regions(BRATS, UNIONS, ["whole", "core", "enhancing"])) == [0, 2, 1, 4]
    assert by_depth(nested_regions(BRATS, UNIONS, ["necrosis", "core", "whole"])) == [0, 2, 4, 1]


@pytest.mark.parametrize(
    ("unions", "names", "words"),
    [
        ({}, None, "has no unions of labels"),
        ({"left": (1, 2), "right": (2, 4)}, ["left", "right"], r"left \[1, 2\] and right \[2, 4\] are not nested"),
        ({"a": (1, 2), "b": (1, 2)}, ["a", "b"], "a .* and b .* hold the same labels"),
        ({"core": (1, 4)}, ["core", "enhancing"], r"oedema = 2 lies in no region, the outermost being core \[1, 4\]"),
        ({"whole": (1, 2, 4)}, ["whole", "enhancing"], "tells the labels necrosis = 1 and oedema = 2 apart"),
        ({"whole": (1, 2, 4)}, ["whole", "tumor"], "no structure is called 'tumor'"),
        (UNIONS, ["whole", "core"], "tells the labels necrosis = 1 and enhancing = 4 apart"),
    ],
)
def test_what_is_no_chain_is_refused(unions: dict, names: list[str] | None, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        nested_regions(BRATS, unions, names)
