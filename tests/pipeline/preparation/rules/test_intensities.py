"""Rules for intensities: which normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rarevox.pipeline.preparation.rules.choice import RARE
from rarevox.pipeline.preparation.rules.intensities import plan_normalisation
from rarevox.transforms import NyulNormalised
from rarevox.transforms.intensity.nyul import learn_landmarks
from tests.pipeline.preparation.plans import channel


class TestNormalisation:
    @pytest.mark.parametrize("name", ["CT", "ct_portal", "Low-dose CT"])
    def test_ct_by_name_takes_the_window_of_the_foreground(self, name: str) -> None:
        value = plan_normalisation({name: channel()}).value
        assert (value["_target_"], value["windows"]) == ("rarevox.transforms.CTWindowd", [-50.0, 180.0])

    def test_ct_by_its_intensities(self) -> None:
        value = plan_normalisation({"image": channel(p00_5=-1000.0, p99_5=900.0)}).value
        assert value["_target_"] == "rarevox.transforms.CTWindowd"

    @pytest.mark.parametrize("names", [("PET", "CT"), ("T1ct",), ("CT1",), ("Direct",)])
    def test_not_everything_with_these_letters_is_ct(self, names: tuple[str, ...]) -> None:
        assert plan_normalisation({name: channel() for name in names}).value["_target_"] == "rarevox.transforms.ZScored"

    @pytest.mark.parametrize(("share", "region"), [(0.0, "image"), (0.2, "image"), (0.7, "nonzero")])
    def test_an_empty_surround_is_left_out(self, share: float, region: str) -> None:
        assert plan_normalisation({"T1": channel(zero_share=share)}).value["region"] == region

    @pytest.mark.parametrize(
        ("share", "facts", "target"),
        [
            (0.004, channel(zero_share=0.7), "NyulNormalised"),
            (0.05, channel(zero_share=0.7), "ZScored"),
            (0.004, channel(zero_share=0.1), "ZScored"),
            (0.004, channel(zero_share=0.7, p00_5=-1000.0, p99_5=900.0), "CTWindowd"),
        ],
    )
    def test_rare_foreground_in_tissue_alone_gets_landmarks(self, share: float, facts: dict, target: str) -> None:
        value = plan_normalisation({"T1": facts}, rare=share < RARE).value
        assert value["_target_"] == f"rarevox.transforms.{target}"

    @pytest.mark.parametrize("rare", [False, True])
    @pytest.mark.parametrize(
        ("zero", "common", "region"),
        [
            (0.7, {"tissue": {"min": 0.77}, "foreground": {"min": 0.9999}}, "common"),
            (
                0.7,
                {"tissue": {"min": 0.2}, "foreground": {"min": 1.0}},
                "nonzero",
            ),  # a channel that is a map of few voxels
            (0.7, {"tissue": {"min": 0.77}, "foreground": {"min": 0.99}}, "nonzero"),  # some foreground would be lost
            (0.7, {"tissue": {"min": 0.77}, "foreground": {}}, "nonzero"),  # no case has any: nothing is known
            (0.7, {"tissue": {}, "foreground": {}}, "nonzero"),  # one channel
            (0.7, None, "nonzero"),  # of an earlier version
            (0.1, {"tissue": {"min": 0.77}, "foreground": {"min": 1.0}}, "image"),  # nothing was stripped
        ],
    )
    def test_channels_are_cut_to_the_tissue_that_all_share(
        self, zero: float, common: Any, region: str, rare: bool
    ) -> None:
        channels = {name: channel(zero_share=zero) for name in ("FLAIR", "T1")}
        choice = plan_normalisation(channels, rare=rare, common=common)
        assert choice.value["region"] == region
        assert ("up to 23 % of a case's" in choice.reason) == (region == "common")

    def test_how_bright_rare_lesions_are_does_not_change_what_the_tissue_becomes(self) -> None:
        """On a hundredth of a scan whose voxels are eight ninths 0 they are 9 % of its tissue, above all landmarks."""
        value = plan_normalisation({"T1": channel(zero_share=8 / 9)}, rare=True).value
        tissue = torch.linspace(1, 100, 910)
        scans = [torch.cat([tissue, torch.full((90,), bright)]).reshape(1, 10, 10, 10) for bright in (150.0, 900.0)]
        for limits, same in ((value["percentiles"], True), ([*value["percentiles"], 99.0], False)):
            step = NyulNormalised("image", percentiles=limits, landmarks=learn_landmarks([(scans[0], None)], limits))
            became = [step({"image": scan.clone()})["image"].flatten()[:910] for scan in scans]
            assert torch.equal(*became) is same

    def test_masks_are_pointed_at(self) -> None:
        assert "region: mask" in plan_normalisation({"T1": channel()}, masks=True).reason

    @pytest.mark.parametrize(("share", "words"), [(0.0, "hardly any voxels are 0"), (0.41, "41 % of a scan's voxels")])
    def test_the_reason_says_how_much_is_empty(self, share: float, words: str) -> None:
        assert words in plan_normalisation({"T1": channel(zero_share=share)}).reason
