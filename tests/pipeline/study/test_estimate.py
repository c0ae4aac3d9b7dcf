"""How long a study takes: by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rarevox.pipeline.study import estimate
from rarevox.pipeline.study.checks import shape_of
from rarevox.pipeline.study.estimate import planned_seconds, seconds_left, step_seconds
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.rows import Row


def cell(name: str, patch: int = 8, batch: int = 1, rate: float = 0.1, **settings: Any) -> PlannedCell:
    own = {"patch_size": [patch] * 3, "batch_size": batch, "optimizer#lr": rate}
    return PlannedCell(name, {"name": name}, {"iterations": 10, "settings": own, **settings})


def test_rates_have_no_share_in_the_time_and_patches_have() -> None:
    assert shape_of(cell("a", rate=1.0)) == shape_of(cell("b", rate=2.0))
    assert shape_of(cell("a", patch=8)) != shape_of(cell("b", patch=16))
    assert shape_of(cell("a")) != shape_of(cell("b", network="deepmedic"))


def test_steps_times_iterations_and_minutes_as_they_are() -> None:
    """10 steps of 2 s, 10 of 2 s, and half a minute; a shape that was not timed counts as the others' mean."""
    cells = [cell("a"), cell("b", rate=1.0), cell("c", patch=16, minutes=0.5)]
    assert planned_seconds(cells, {shape_of(cells[0]): 2.0}) == 20 + 20 + 30
    assert planned_seconds([cell("d", patch=32)], {"x": 1.0, "y": 3.0}) == 10 * 2.0


def test_cells_that_are_done_tell_of_those_alike_and_of_all() -> None:
    cells = [cell("a"), cell("b", rate=1.0), cell("c", patch=16), cell("d", patch=32)]
    done = {
        "a": Row("a", {}, "done", seconds={"start": 1.0, "steps": 3.0}),
        "c": Row("c", {}, "done", seconds={"steps": 8.0}),
    }
    assert seconds_left([cells[1], cells[3]], cells, done) == 4.0 + 6.0
    assert seconds_left([cells[2]], cells, done) == 8.0  # to be run again, by its own time
    assert seconds_left(cells, cells, {"a": Row("a", {}, "failed")}) is None


def test_where_time_is_short_one_patch_of_each_network_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 voxels take 1 s, so 4096 take 8 s, times the batch; the other network is timed too."""
    timed: list[int] = []

    def patch_seconds(config: dict[str, Any], **_: Any) -> tuple[float, None]:
        timed.append(config["patch_size"][0])
        return 1.0, None

    monkeypatch.setattr(estimate, "timed", patch_seconds)
    shapes = {
        name: (
            cell(name, size, batch, network=network),
            {"patch_size": [size] * 3, "batch_size": batch, "network_def": network},
        )
        for name, size, batch, network in (("b", 16, 3, "x"), ("a", 8, 2, "x"), ("c", 32, 1, "y"))
    }
    assert step_seconds(shapes, 1, longest=-1.0) == {"a": 2.0, "b": 24.0, "c": 1.0}
    assert timed == [8, 32]
    assert step_seconds(shapes, 1, longest=60.0) == {"a": 2.0, "b": 3.0, "c": 1.0}
