from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.transforms import LabelsToClassesd
from rarevox.transforms.labels import IGNORED, classes_from_values, values_from_classes


@given(values=st.lists(st.integers(1, 400), min_size=1, max_size=6, unique=True), seed=st.integers(0, 99))
def test_there_and_back(values: list[int], seed: int) -> None:
    table = [0, *values]
    classes = torch.randint(0, len(table), (1, 4, 5, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    assert torch.equal(classes_from_values(values_from_classes(classes, table).float(), table), classes)


def test_what_is_not_declared_is_named() -> None:
    with pytest.raises(ValueError, match=r"\[3.0\], declared are \[0, 1\]"):
        classes_from_values(torch.tensor([0.0, 3.0]), [0, 1])
    with pytest.raises(ValueError, match="0.5"):
        classes_from_values(torch.tensor([0.0, 0.5]), [0, 1])


def test_values_must_be_distinct() -> None:
    with pytest.raises(ValueError, match="distinct"):
        LabelsToClassesd("label", [0, 1, 1])


def test_what_nobody_annotated_has_a_class_of_its_own() -> None:
    labels = torch.tensor([[0, 3, 1, 3]])
    assert classes_from_values(labels, [0, 1], ignored=3).tolist() == [[0, IGNORED, 1, IGNORED]]
    out = LabelsToClassesd("label", values=[0, 1], ignored=3)({"label": labels})["label"]
    assert (out.tolist(), out.dtype) == ([[0, IGNORED, 1, IGNORED]], torch.uint8)
    with pytest.raises(ValueError, match="ignored is 1, which is a class too"):
        LabelsToClassesd("label", values=[0, 1], ignored=1)
    with pytest.raises(ValueError, match="256 classes and an ignored label"):
        classes_from_values(labels, list(range(256)), ignored=300)
