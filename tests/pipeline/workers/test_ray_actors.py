"""Workers as actors on a Ray cluster of this machine."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.workers.pool import Death
from tests.pipeline.workers.stub import Stub, hanging_outcomes

pytest.importorskip("ray", reason="needs the extra ray")

from rarevox.pipeline.workers.ray_actors import RayActors


@pytest.mark.slow
def test_actors_do_the_work_in_order_and_their_ends_cost_a_task(tmp_path: Any) -> None:
    """One cluster for all of it: its start takes seconds."""
    once = ("once", str(tmp_path / "died"))
    found = hanging_outcomes(RayActors(Stub()), [*range(10), "kill", "a", once], ["b"])
    deaths = {number: result.reason for number, result in found.items() if isinstance(result, Death)}
    assert set(deaths) == {10, 13}
    assert "was lost" in deaths[10]
    assert "--scan-minutes" in deaths[13]
    assert [found[number][1] for number in (*range(10), 11, 12, 14)] == [*range(10), "a", once, "b"]
    assert os.getpid() not in {result[0] for result in found.values() if not isinstance(result, Death)}


def test_what_is_refused_is_one_sentence() -> None:
    with pytest.raises(RequestError, match="no Ray cluster answers at"):
        RayActors(Stub(), "127.0.0.1:1")
