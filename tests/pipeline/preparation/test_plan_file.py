"""The plan: chosen by stated rules, readable, used by training beneath everything else, kept when it was edited."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from rarevox.pipeline.compose import compose
from rarevox.pipeline.console import Console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation import prepare_report
from rarevox.pipeline.preparation.plan_file import is_edited, is_edited_plan, make_plan, plan_text, write_plan
from rarevox.pipeline.preparation.rules.choice import Choice
from rarevox.pipeline.training.fit import fit_to_data
from rarevox.pipeline.training.train import train
from tests.pipeline.preparation.plans import edit

SETTINGS = ("network_def#width=2", "epoch_length=1", "validation_cases=1")


class TestText:
    CHOICES = (Choice("spacing", None, "A reason. " * 30), Choice("patch_size", [8, 16, 24], "Another: with a colon."))

    def test_it_is_yaml_with_every_reason_as_a_comment(self) -> None:
        text = plan_text("Data # 1", self.CHOICES)
        assert yaml.safe_load(text) == {"spacing": None, "patch_size": [8, 16, 24]}
        assert "# Another: with a colon.\npatch_size: [8, 16, 24]\n" in text
        assert max(map(len, text.splitlines())) <= 120

    def test_an_edit_is_noticed(self) -> None:
        text = plan_text("x", self.CHOICES)
        assert not is_edited(text)
        assert is_edited(text.replace("24", "32"))
        assert is_edited("spacing: null\n")

    def test_an_edited_plan_is_kept(self, tmp_path: Path) -> None:
        assert not write_plan(tmp_path, "x", self.CHOICES)
        assert not write_plan(tmp_path, "x", self.CHOICES[:1])
        for number, name in enumerate(("plan.edited.yaml", "plan.edited-2.yaml", "plan.edited-3.yaml"), 7):
            (tmp_path / "plan.yaml").write_text(f"batch_size: {number}\n")
            assert write_plan(tmp_path, "x", self.CHOICES) == tmp_path / name
            assert is_edited_plan(name)
            assert not is_edited((tmp_path / "plan.yaml").read_text(encoding="utf-8"))
        kept = sorted(path.read_text(encoding="utf-8") for path in tmp_path.glob("plan.edited*"))
        assert kept == ["batch_size: 7\n", "batch_size: 8\n", "batch_size: 9\n"]

    def test_a_plan_that_is_no_text_is_kept_too(self, tmp_path: Path) -> None:
        (tmp_path / "plan.yaml").write_bytes(b"batch_size: \xff\n")
        assert write_plan(tmp_path, "x", self.CHOICES)
        assert (tmp_path / "plan.edited.yaml").read_bytes() == b"batch_size: \xff\n"


def test_small_volumes_get_small_patches_and_larger_batches(dataset: Dataset) -> None:
    fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text(encoding="utf-8"))
    plan = {choice.key: choice for choice in make_plan(dataset, fingerprint)}
    assert set(plan) == {
        *("spacing", "network", "patch_size", "batch_size", "normalisation", "sampler"),
        *("background_share", "planting_share", "augmentation_strength", "intensity_change", "scan_statistics"),
        *("mirror_axes", "loss#_target_"),
    }
    assert (
        plan["background_share"].value == plan["planting_share"].value == 0
    )  # a ball of 123 voxels and a box of 27 fill 2 % of the 7920
    assert plan["spacing"].value is None
    patch = plan["patch_size"].value
    assert all(n <= size + 3 for n, size in zip(patch, (22, 20, 18), strict=True))
    # Two patches of 40³ hold 128 000 voxels; six cases train.
    assert plan["batch_size"].value == min(8, 6, round(2 * 40**3 / (patch[0] * patch[1] * patch[2])))
    assert all(choice.reason.endswith(".") for choice in plan.values())


def test_training_reads_the_plan_beneath_network_config_and_set(dataset: Dataset, tmp_path: Path) -> None:
    edit(dataset, batch_size=3, patch_size=[20, 20, 20])
    assert compose("train", dataset=dataset).config["batch_size"] == 3
    assert compose("train", dataset=dataset, network="deepmedic").config["patch_size"] == [75, 75, 75]
    (tmp_path / "mine.yaml").write_text("batch_size: 5\n")
    assert compose("train", dataset=dataset, config_files=[tmp_path / "mine.yaml"]).config["batch_size"] == 5
    assert compose("train", dataset=dataset, settings=["batch_size=6"]).config["batch_size"] == 6
    assert compose("evaluate", dataset=dataset).config.get("batch_size") is None


def test_a_dataset_without_a_plan_trains_as_before(dataset: Dataset) -> None:
    (dataset.path.parent / "plan.yaml").unlink()
    assert compose("train", dataset=dataset).config["batch_size"] == 2


def test_a_key_that_does_not_exist_is_refused_with_the_plan_s_name(dataset: Dataset) -> None:
    edit(dataset, batchsize=3)
    with pytest.raises(RequestError, match=r"plan\.yaml: no configuration key 'batchsize'.*batch_size"):
        compose("train", dataset=dataset)


def test_an_edited_patch_is_trained_on_as_it_stands(dataset: Dataset, tmp_path: Path) -> None:
    """A patch of 12³ would otherwise be reshaped; with another spacing it is fitted again."""
    edit(dataset, batch_size=1, patch_size=[12, 16, 12])
    folder = dataset.path.parent
    assert train(folder, tmp_path / "run", settings=SETTINGS, iterations=1, device="cpu") == 0
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text(encoding="utf-8"))
    assert (config["patch_size"], config["batch_size"]) == ([12, 16, 12], 1)
    assert train(folder, tmp_path / "b", settings=(*SETTINGS, "spacing=[4,4,4]"), iterations=1, device="cpu") == 0
    config = yaml.safe_load((tmp_path / "b" / "configs" / "train.yaml").read_text(encoding="utf-8"))
    assert max(config["patch_size"]) <= 8  # 22 × 20 × 18 voxels of 1 × 1 × 1.5 mm are 6 × 5 × 7 of 4 mm


@pytest.mark.parametrize("width", [80, 200])
def test_no_name_of_a_class_is_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(prepare_report, "console", Console(file=text, width=width, soft_wrap=True))
    reason = "Some words, and rarevox.transforms.LesionBalancedSampler would draw small ones as often. Then more."
    sampler = Choice("sampler", {"_target_": "rarevox.transforms.ClassBalancedSampler"}, reason)
    rest = [Choice("normalisation", {"_target_": "a.ZScored", "keys": "image", "region": "nonzero"}, "Why " * 30)]
    prepare_report.show_plan([sampler, *rest, Choice("background_share", 0.5, "Half.")], Path("out"), named=True)
    for name in ("rarevox.transforms.LesionBalancedSampler", "ClassBalancedSampler", "background_share"):
        assert name in text.getvalue()
    told = [line for line in text.getvalue().splitlines() if line.startswith("      ")]
    assert " ".join(" ".join(told).split()).count("Why") == 30 and "as often." in text.getvalue()  # nothing is cut off
    assert told and all(len(line.rstrip()) <= width for line in told)  # reasons are broken at words
    assert "Then more" not in text.getvalue()  # the first sentence is enough here; plan.yaml has all


def test_a_configuration_that_replaces_what_is_planned_is_told(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole entries alone, and only where they say something else."""
    planned = yaml.safe_load((dataset.path.parent / "plan.yaml").read_text(encoding="utf-8"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        yaml.dump({"normalisation#region": "image", "batch_size": planned["batch_size"], "mirror_axes": [2]})
    )
    composed = compose("train", dataset=dataset, config_files=["nyul", mine])
    assert composed.replaced == {"nyul": ["normalisation"], str(mine): ["mirror_axes"]}
    fit_to_data(composed, dataset)
    assert "--config nyul replaces what the dataset's plan says of normalisation" in capsys.readouterr().err
