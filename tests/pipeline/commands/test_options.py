from __future__ import annotations

import pytest

from rarevox.pipeline.commands.options import named_structures, pairs
from rarevox.pipeline.errors import RequestError


def test_pairs_are_a_mapping() -> None:
    assert pairs(["t1=*_t1.nii", "mask=a=b"], "--channel") == {"t1": "*_t1.nii", "mask": "a=b"}
    assert pairs([], "--channel") == {}


@pytest.mark.parametrize("text", ["t1", "=x", "t1="])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"is not NAME=PATTERN; for example --channel T1='\*T1w\*'"):
        pairs([text], "--channel")
    with pytest.raises(RequestError, match="is not STRUCTURE=P; for example --threshold lesion=0.3"):
        pairs([text], "--threshold")


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="--channel names t1 twice"):
        pairs(["t1=a", "t1=b"], "--channel")


def test_unions_are_composites() -> None:
    found = named_structures(["core=1", "whole=1+2"])
    assert found == {"structures": {"core": 1}, "composites": {"whole": (1, 2)}}
    assert named_structures([]) == {"structures": None, "composites": None}
