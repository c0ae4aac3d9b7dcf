"""Rules for patches: the sampler, patches without foreground, planting; and when another setting wins over them."""

from __future__ import annotations

import json

import pytest

from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.preparation.plan_file import make_plan, write_plan
from rarevox.pipeline.preparation.rules.choice import Choice
from rarevox.pipeline.preparation.rules.intensities import plan_augmentation, plan_statistics
from rarevox.pipeline.preparation.rules.sampling import plan_background, plan_planting, plan_sampler
from rarevox.pipeline.training.fit import fit_to_data
from tests.pipeline.preparation.plans import edit


class TestBackground:
    @staticmethod
    def choice(share: float, empty: list[str] | None = None) -> Choice:
        held = {"foreground_share": {"median": share}, "structures": {}}
        return plan_background(held | {"cases_without_foreground": empty or []})

    def test_rare_structures_get_patches_without_any(self) -> None:
        assert (self.choice(0.009).value, self.choice(0.01).value) == (0.5, 0.0)
        assert "0.9 % of a scan" in self.choice(0.009).reason

    def test_so_do_cases_that_hold_none(self) -> None:
        choice = self.choice(0.2, ["a", "b"])
        assert choice.value == 0.5 and "2 cases hold no foreground" in choice.reason

    def test_many_rare_lesions_are_planted_and_an_organ_is_not(self) -> None:
        def planted(share: float, components: float) -> float:
            x = {"cases": 3, "components": {"median": components}, "share": {"median": share}}
            rows = {"x": x, "y": {"cases": 0}}
            choice = plan_planting({"foreground_share": {"median": share}, "structures": rows})
            return float(choice.value)

        assert [planted(0.009, 5), planted(0.009, 4), planted(0.01, 5)] == [0.5, 0.0, 0.0]

    def test_the_reason_says_what_share_of_all_patches_is_planted(self) -> None:
        """Half of the patches are drawn for foreground, half of these are planted; the others hold none and stay so."""
        rows = {"x": {"cases": 3, "components": {"median": 9}}}
        fingerprint = {"foreground_share": {"median": 0.001}, "structures": rows, "cases_without_foreground": []}
        planting, background = plan_planting(fingerprint), plan_background(fingerprint)
        assert (planting.value, background.value) == (0.5, 0.5)
        assert "half of the patches drawn for foreground, 25 % of all" in planting.reason
        assert "half of the patches hold none" in background.reason and "nothing is planted" in background.reason

    def test_a_loss_that_planting_does_not_suit_wins_over_the_plan(self, dataset: Dataset) -> None:
        edit(dataset, planting_share=0.5)
        assert fit_to_data(compose("train", dataset=dataset), dataset)["planting_share"] == 0.5
        regions = compose("train", dataset=dataset, loss="component_dice_ce")
        assert fit_to_data(regions, dataset)["planting_share"] == 0

    def test_so_do_scans_between_which_lesions_would_change_in_size(self, dataset: Dataset) -> None:
        edit(dataset, planting_share=0.5)
        composed = compose("train", dataset=dataset)
        composed.config["spacing_seen_mm"] = [[1, 1], [1, 1], [1, 1.2]]
        assert fit_to_data(composed, dataset)["planting_share"] == 0
        composed.config["spacing"] = [1, 1, 1]
        assert fit_to_data(composed, dataset)["planting_share"] == 0.5

    def test_the_paper_s_protocol_keeps_to_its_rule(self, dataset: Dataset) -> None:
        edit(dataset, background_share=0.5)
        assert compose("train", dataset=dataset).config["background_share"] == 0.5
        assert compose("train", dataset=dataset, config_files=["paper"]).config["background_share"] == 0


def test_lesions_are_planted_and_organs_beside_them_are_not(dataset: Dataset) -> None:
    """Both structures rare, the second one of many components: class 2 alone is planted, and a training takes it."""
    fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text(encoding="utf-8"))
    fingerprint["foreground_share_held"]["median"] = 0.001
    fingerprint["structures"]["box"]["components"]["median"] = 7
    choices = make_plan(dataset, fingerprint)
    write_plan(dataset.path.parent, "x", choices)
    config = compose("train", dataset=dataset).config
    assert (config["background_share"], config["planting_share"]) == (0.5, 0.5)
    assert config["lesion_library"]["classes"] == [2]


@pytest.mark.parametrize("structures", [1, 2])
def test_one_structure_is_not_compared_with_others(structures: int) -> None:
    """Of two of the sizes 10 and 30 the larger one is three times as large."""
    held = {
        name: {"cases": 3, "voxels": {"median": voxels}, "components": {"median": 1.0}}
        for name, voxels in (("lesion", 10.0), ("ventricle", 30.0))[:structures]
    }
    reason = plan_sampler({"structures": held, "foreground_share": {"median": 0.01}}).reason
    assert ("of those in a case every structure comes equally often" in reason) == (structures == 2)
    assert ("ventricle is 3 times as large as lesion" in reason) == (structures == 2)
    assert reason.endswith(".")


def test_a_structure_of_few_cases_is_not_said_to_come_as_often() -> None:
    rows = {
        name: {"cases": cases, "voxels": {"median": 10.0}, "components": {"median": 1.0}}
        for name, cases in (("organ", 40), ("cyst", 2))
    }
    reason = plan_sampler({"structures": rows, "foreground_share": {"median": 0.02}}).reason
    assert "(cyst in 2 of 40 cases, and so in as few of the draws.)" in reason


def test_rare_lesions_beside_a_large_organ_are_told_of() -> None:
    rows = {
        "liver": {"cases": 9, "components": {"median": 1.0}, "share": {"median": 0.04}},
        "metastasis": {"cases": 9, "components": {"median": 23.0}, "share": {"median": 0.001}},
    }
    fingerprint = {"foreground_share": {"median": 0.041}, "structures": rows, "cases_without_foreground": []}
    for choice in (plan_background(fingerprint), plan_planting(fingerprint)):
        assert choice.value == 0.0 and "metastasis alone would be such lesions" in choice.reason
        assert "--set background_share=0.5 --set planting_share=0.5" in choice.reason


def test_how_much_foreground_fills_is_asked_of_scans_that_hold_some() -> None:
    """Of twenty scans nine have a large mass: it is no rare one, though the median scan has none."""
    fingerprint = {
        "foreground_share": {"median": 0.0},
        "foreground_share_held": {"median": 0.08},
        "structures": {"mass": {"cases": 9, "components": {"median": 1.0}, "share": {"median": 0.08}}},
        "cases_without_foreground": [f"c{number}" for number in range(11)],
    }
    assert plan_statistics(fingerprint, ct=False).value == 0.0
    assert plan_augmentation(fingerprint, ct=False)[0].value == "strong"
    assert plan_background(fingerprint).value == 0.5
