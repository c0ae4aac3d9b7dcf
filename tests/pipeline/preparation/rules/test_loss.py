"""The rule for the loss, and that `--loss` has the last word."""

from __future__ import annotations

from typing import Any

import pytest

from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.preparation.rules.loss import GDL_CE, plan_loss
from tests.pipeline.preparation.plans import edit


def fingerprint(share: float, components: float) -> dict[str, Any]:
    rows = {"lesion": {"cases": 3, "components": {"median": components}}}
    return {"foreground_share": {"median": share}, "structures": rows}


@pytest.mark.parametrize(("share", "components", "lesions"), [(0.004, 5, True), (0.004, 4, False), (0.02, 9, False)])
def test_for_rare_lesions_the_reason_names_what_other_losses_are_good_for(
    share: float, components: float, lesions: bool
) -> None:
    choice = plan_loss(fingerprint(share, components))
    assert choice.value == GDL_CE
    assert ("--loss dice_topk" in choice.reason) == lesions


def test_the_planned_loss_is_the_template_s_unless_another_is_named(dataset: Dataset) -> None:
    edit(dataset, **{"loss#_target_": GDL_CE})
    planned = compose("train", dataset=dataset).config["loss"]
    assert planned == compose("train").config["loss"]
    topk = compose("train", dataset=dataset, loss="dice_topk").config["loss"]
    assert topk == compose("train", loss="dice_topk").config["loss"]


def test_a_plan_may_name_another_loss_of_ours(dataset: Dataset) -> None:
    edit(dataset, **{"loss#_target_": "rarevox.losses.DiceCELoss"})
    assert compose("train", dataset=dataset).config["loss"]["_target_"] == "rarevox.losses.DiceCELoss"
