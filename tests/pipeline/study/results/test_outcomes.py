"""What a plan and its cells come to: roles of axes, states, figures."""

from __future__ import annotations

import math
from typing import Any

from rarevox.pipeline.study.results.outcomes import results_of, roles_of


def plan(*cells: dict[str, Any], axes: dict[str, list[str]] | None = None, **more: Any) -> dict[str, Any]:
    return {"axes": axes or {"loss": ["gdl", "wce"]}, "cells": list(cells), **more}


def planned(name: str, **labels: str) -> dict[str, Any]:
    return {"cell": name, "labels": labels, "settings": {"network": "highresnet"}}


def test_axes_play_their_roles_by_name_or_by_layout() -> None:
    assert roles_of(["networks", "lr", "seed"], {}) == {"networks": "network", "lr": "lr", "seed": "seed"}
    assert roles_of(["lr", "rate"], {"lr": "rate"}) == {"rate": "lr"}
    assert roles_of(["lr", "learning_rate"], {}) == {"lr": "lr"}


def test_a_cell_is_pending_until_it_is_there_and_strangers_are_left_out() -> None:
    done = {"cell": "a", "state": "done", "train_dice": {"median": 0.5, "q1": 0.25, "q3": 0.75}}
    content = plan(planned("a", loss="gdl"), planned("b", loss="wce"), dataset={"folder": "D"})
    found = results_of(content, [done, {"cell": "z", "state": "done"}])
    assert [(one.cell, one.state) for one in found.outcomes] == [("a", "done"), ("b", "pending")]
    assert (found.outcomes[0].dice, found.outcomes[0].iqr) == (0.5, 0.5)
    assert math.isnan(found.outcomes[1].dice)
    assert (found.count("done"), found.count("pending"), found.dataset) == (1, 1, "D")


def test_what_all_cells_have_in_common_is_an_axis_of_one() -> None:
    found = results_of(plan(planned("a", loss="gdl")), [])
    assert found.labels("network") == ("highresnet",)
    assert [one.cell for one in found.where(network="highresnet")] == ["a"]
    assert found.labels("patch") == ("",)


def test_a_failed_cell_has_no_dice_unless_its_loss_became_infinite() -> None:
    cells = [
        {"cell": "a", "state": "failed", "reason": "no space left on device"},
        {"cell": "b", "state": "failed", "reason": "loss or gradients were not finite in 20 steps in a row (to 90)"},
    ]
    first, second = results_of(plan(planned("a", loss="gdl"), planned("b", loss="wce")), cells).outcomes
    assert math.isnan(first.dice) and first.reason == "no space left on device"
    assert second.dice == second.test == 0.0


def test_a_hint_says_what_scaled_labels_stand_for() -> None:
    found = results_of(plan(planned("a", loss="gdl"), layout={"paper": {"lr": {"5e-5": "1e-5"}, "patch": 3}}), [])
    assert found.scaled == {"lr": {"5e-5": "1e-5"}}
    assert results_of(plan(planned("a", loss="gdl"), layout={"paper": "no"}), []).scaled == {}


def test_the_patch_of_slices_is_their_edge() -> None:
    cell = {"cell": "a", "state": "done", "effective_patch": [48, 48, 1], "seconds": {"start": 1, "steps": 2.5}}
    (one,) = results_of(plan(planned("a", loss="gdl")), [cell]).outcomes
    assert one.patch == 48
    assert one.seconds == 3.5
