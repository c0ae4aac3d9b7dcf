"""Shares of a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.workers.shards import Shard, parse_shard


@given(st.integers(1, 12), st.integers(0, 100))
def test_all_shares_together_hold_each_entry_once(count: int, length: int) -> None:
    shares = [Shard(index, count).of(range(length)) for index in range(1, count + 1)]
    assert sorted(entry for share in shares for entry in share) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_slurm_arrays_that_begin_anywhere_and_go_in_steps() -> None:
    where = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "5"}
    found = [parse_shard("auto", where | {"SLURM_ARRAY_TASK_ID": one}) for one in ("10", "15", "20")]
    assert found == [Shard(1, 3), Shard(2, 3), Shard(3, 3)]


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("3", {}, "neither i/n"),
        ("0/4", {}, "no share 0 of 4"),
        ("5/4", {}, "no share 5 of 4"),
        ("a/b", {}, "neither i/n"),
        ("auto", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "give auto/n"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "3"}, "no whole number"),
    ],
)
def test_wrong_shares_are_one_sentence(text: str, where: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_shard(text, where)
