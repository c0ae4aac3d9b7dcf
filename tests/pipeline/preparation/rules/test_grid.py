"""Rules for the grid: spacing and rotations."""

from __future__ import annotations

import json

from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.preparation.plan_file import make_plan, write_plan
from rarevox.pipeline.preparation.rules.grid import plan_rotations, plan_spacing
from tests.pipeline.preparation.plans import rows


class TestSpacing:
    def test_alike_voxels_keep_their_grid(self) -> None:
        assert plan_spacing(rows((1.0, 1.0, 3.0), (1.05, 1.0, 3.1))).value is None

    def test_different_voxels_go_to_the_median(self) -> None:
        assert plan_spacing(rows((1.0, 1.0, 3.0), (1.0, 1.0, 3.0), (0.5, 0.5, 6.0))).value == [1.0, 1.0, 3.0]

    def test_axes_are_those_of_the_body(self) -> None:
        stored = rows((3.0, 1.0, 2.0), orientation="SLA") + rows((1.0, 2.0, 3.0))
        assert plan_spacing(stored).value is None
        assert "1 × 2 × 3 mm" in plan_spacing(stored).reason


class TestRotations:
    def test_thick_slices_are_turned_within_themselves(self) -> None:
        assert plan_rotations(rows((1.0, 1.0, 2.9)), None) is None
        thick = plan_rotations(rows((1.0, 1.0, 3.0), (1.0, 1.0, 5.0)), None)
        assert thick is not None and thick.value == [0.0, 0.0, 0.35] and "superior-inferior" in thick.reason

    def test_axes_are_those_of_the_body_and_the_grid_that_of_training(self) -> None:
        stored = rows((5.0, 0.5, 0.5), orientation="ARS")
        sagittal = plan_rotations(stored, None)
        assert sagittal is not None and sagittal.value == [0.0, 0.35, 0.0]
        assert plan_rotations(stored, [1.0, 1.0, 1.0]) is None

    def test_a_training_takes_them(self, dataset: Dataset) -> None:
        fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text(encoding="utf-8"))
        for row in fingerprint["per_case"]:
            row["spacing_mm"] = [1.0, 1.0, 4.0]
        write_plan(dataset.path.parent, "x", make_plan(dataset, fingerprint))
        config = compose("train", dataset=dataset).config
        assert (config["augmentation_strength"], config["rotations"]) == ("strong", [0.0, 0.0, 0.35])
        light = compose("train", dataset=dataset, settings=["augmentation_strength=light"])
        assert light.config["augmentation_strength"] == "light"
