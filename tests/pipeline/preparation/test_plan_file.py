"""The plan: chosen by stated rules, readable, used by training beneath everything else, kept when it was edited."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rarevox.pipeline.compose import compose
from rarevox.pipeline.console import Console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation import prepare_report
from rarevox.pipeline.preparation.plan_file import is_edited, make_plan, plan_text, write_plan
from rarevox.pipeline.preparation.rules.choice import RARE, Choice
from rarevox.pipeline.preparation.rules.grid import plan_rotations, plan_spacing
from rarevox.pipeline.preparation.rules.intensities import plan_normalisation
from rarevox.pipeline.preparation.rules.sampling import plan_background, plan_planting, plan_sampler
from rarevox.pipeline.training.fit import fit_to_data
from rarevox.pipeline.training.train import train
from rarevox.transforms import NyulNormalised
from rarevox.transforms.intensity.nyul import learn_landmarks

SETTINGS = ("network_def#width=2", "epoch_length=1", "validation_cases=1")


def rows(*spacings: tuple[float, float, float], orientation: str = "RAS") -> list[dict[str, Any]]:
    return [{"orientation": orientation, "spacing_mm": list(spacing)} for spacing in spacings]


def channel(**more: float) -> dict[str, Any]:
    image = {"p00_5": 0.0, "p05": 1.0, "p50": 50.0, "p95": 90.0, "p99_5": 100.0, "zero_share": 0.0} | more
    return {"image_median_over_cases": image, "foreground_pooled": {"p00_5": -43.0, "p99_5": 171.0}}


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


class TestNormalisation:
    @pytest.mark.parametrize("name", ["CT", "ct_portal", "Low-dose CT"])
    def test_ct_by_name_takes_the_window_of_the_foreground(self, name: str) -> None:
        value = plan_normalisation({name: channel()}).value
        assert (value["_target_"], value["windows"]) == ("rarevox.transforms.CTWindowd", [-50.0, 180.0])

    def test_ct_by_its_intensities(self) -> None:
        value = plan_normalisation({"image": channel(p00_5=-1000.0, p99_5=900.0)}).value
        assert value["_target_"] == "rarevox.transforms.CTWindowd"

    @pytest.mark.parametrize("names", [("PET", "CT"), ("T1ct",), ("Direct",)])
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


class TestBackground:
    @staticmethod
    def choice(share: float, empty: list[str] | None = None) -> Choice:
        return plan_background({"foreground_share": {"median": share}, "cases_without_foreground": empty or []})

    def test_rare_structures_get_patches_without_any(self) -> None:
        assert (self.choice(0.009).value, self.choice(0.01).value) == (0.5, 0.0)
        assert "0.9 % of a scan" in self.choice(0.009).reason

    def test_so_do_cases_that_hold_none(self) -> None:
        choice = self.choice(0.2, ["a", "b"])
        assert choice.value == 0.5 and "2 cases hold no foreground" in choice.reason

    def test_many_rare_lesions_are_planted_and_an_organ_is_not(self) -> None:
        def planted(share: float, components: float) -> float:
            rows = {"x": {"cases": 3, "components": {"median": components}}, "y": {"cases": 0}}
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
        (tmp_path / "plan.yaml").write_text("batch_size: 7\n")
        assert write_plan(tmp_path, "x", self.CHOICES)
        assert (tmp_path / "plan.edited.yaml").read_text(encoding="utf-8") == "batch_size: 7\n"
        assert not is_edited((tmp_path / "plan.yaml").read_text(encoding="utf-8"))

    def test_a_plan_that_is_no_text_is_kept_too(self, tmp_path: Path) -> None:
        (tmp_path / "plan.yaml").write_bytes(b"batch_size: \xff\n")
        assert write_plan(tmp_path, "x", self.CHOICES)
        assert (tmp_path / "plan.edited.yaml").read_bytes() == b"batch_size: \xff\n"


@pytest.fixture
def dataset(dataset_dir: Path, tmp_path: Path) -> Dataset:
    """The prepared synthetic cases (22 × 20 × 18 voxels of 1 × 1 × 1.5 mm), with a plan of their own to edit."""
    for name in ("dataset.json", "fingerprint.json", "plan.yaml"):
        (tmp_path / name).write_bytes((dataset_dir / name).read_bytes())
    return Dataset.load(tmp_path)


def edit(dataset: Dataset, **values: Any) -> None:
    path = dataset.path.parent / "plan.yaml"
    path.write_text(yaml.dump(yaml.safe_load(path.read_text(encoding="utf-8")) | values))


def test_small_volumes_get_small_patches_and_larger_batches(dataset: Dataset) -> None:
    fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text(encoding="utf-8"))
    plan = {choice.key: choice for choice in make_plan(dataset, fingerprint)}
    assert set(plan) == {
        *("spacing", "network", "patch_size", "batch_size", "normalisation", "sampler"),
        *("background_share", "planting_share", "augmentation_strength", "intensity_change", "scan_statistics"),
        "mirror_axes",
    }
    assert (
        plan["background_share"].value == plan["planting_share"].value == 0
    )  # a ball of 123 voxels and a box of 27 fill 2 % of the 7920
    assert plan["spacing"].value is None
    patch = plan["patch_size"].value
    assert all(n <= size + 3 for n, size in zip(patch, (22, 20, 18), strict=True))
    # Two patches of 40³ hold 128 000 voxels; six cases train.
    assert plan["batch_size"].value == min(8, 6, round(2 * 40**3 / (patch[0] * patch[1] * patch[2])))
    assert all(choice.reason.endswith((".", "ones.")) for choice in plan.values())


def test_lesions_are_planted_and_organs_beside_them_are_not(dataset: Dataset) -> None:
    """Both structures rare, the second one of many components: class 2 alone is planted, and a training takes it."""
    fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text(encoding="utf-8"))
    fingerprint["foreground_share"]["median"] = 0.001
    fingerprint["structures"]["box"]["components"]["median"] = 7
    choices = make_plan(dataset, fingerprint)
    write_plan(dataset.path.parent, "x", choices)
    config = compose("train", dataset=dataset).config
    assert (config["background_share"], config["planting_share"]) == (0.5, 0.5)
    assert config["lesion_library"]["classes"] == [2]


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


def test_the_network_that_a_plan_names_is_trained_unless_another_is_named(dataset: Dataset) -> None:
    edit(dataset, network="unet", patch_size=[40, 40, 40])
    composed = compose("train", dataset=dataset)
    assert composed.config["network_def"]["_target_"] == "monai.networks.nets.UNet"
    assert composed.config["network"]["_target_"] == "rarevox.pipeline.place_network"
    assert composed.config["patch_size"] == [40, 40, 40]
    named = compose("train", dataset=dataset, network="deepmedic")
    assert named.config["network_def"]["_target_"] == "rarevox.networks.DeepMedic"
    assert named.config["patch_size"] == compose("train", network="deepmedic").config["patch_size"]
    for wrong in ("unett", 3, ["unet"]):
        edit(dataset, network=wrong)
        with pytest.raises(RequestError, match=r"plan\.yaml: no network is called .*unet"):
            compose("train", dataset=dataset)


def test_a_planned_network_goes_where_the_user_brings_one(dataset: Dataset, tmp_path: Path) -> None:
    """With its geometry, which would be that of another; and who sets a part of another network is told of the plan."""
    edit(dataset, network="unet")
    (tmp_path / "mine.yaml").write_text(
        yaml.dump({"network_def": {"_target_": "rarevox.networks.DeepMedic", "in_channels": 1, "out_channels": 3}})
    )
    config = compose("train", dataset=dataset, config_files=[tmp_path / "mine.yaml"]).config
    assert config["geometry"] == compose("train").config["geometry"]
    with pytest.raises(RequestError, match=r"network_def#width.*the network is unet, as plan\.yaml says"):
        compose("train", dataset=dataset, settings=["network_def#width=4"])


def test_the_patch_of_a_network_that_was_written_into_the_plan_is_fitted(dataset: Dataset) -> None:
    """Where the line of the patch went with the old one; else the patch stands."""
    plan = yaml.safe_load((dataset.path.parent / "plan.yaml").read_text(encoding="utf-8"))
    rest = {key: value for key, value in plan.items() if key not in ("patch_size", "batch_size")}
    (dataset.path.parent / "plan.yaml").write_text(yaml.dump(rest | {"network": "unet"}))
    # 22 × 20 × 18 voxels, in multiples of 8.
    assert fit_to_data(compose("train", dataset=dataset), dataset)["patch_size"] == [24, 24, 24]
    edit(dataset, patch_size=[16, 16, 16])
    assert fit_to_data(compose("train", dataset=dataset), dataset)["patch_size"] == [16, 16, 16]


@pytest.mark.parametrize(
    ("share", "components", "network"), [(0.004, 5, "unet"), (0.004, 4, "highresnet"), (0.02, 9, "highresnet")]
)
def test_many_rare_lesions_get_a_unet_and_its_patch(
    dataset: Dataset, share: float, components: int, network: str
) -> None:
    fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text())
    fingerprint["foreground_share"]["median"] = share
    for row in fingerprint["structures"].values():
        row["components"]["median"] = components
    plan = {choice.key: choice.value for choice in make_plan(dataset, fingerprint)}
    assert plan["network"] == network
    # UNet takes multiples of 8; HighResNet runs fastest in multiples of 16.
    assert plan["patch_size"] == ([24, 24, 24] if network == "unet" else [16, 16, 16])


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


@pytest.mark.parametrize("structures", [1, 2])
def test_one_structure_is_not_compared_with_others(structures: int) -> None:
    """Of two of the sizes 10 and 30 the larger one is three times as large."""
    held = {
        name: {"cases": 3, "voxels": {"median": voxels}, "components": {"median": 1.0}}
        for name, voxels in (("lesion", 10.0), ("ventricle", 30.0))[:structures]
    }
    reason = plan_sampler({"structures": held, "foreground_share": {"median": 0.01}}).reason
    assert ("every structure comes equally often" in reason) == (structures == 2)
    assert ("ventricle is 3 times as large as lesion" in reason) == (structures == 2)
    assert reason.endswith(".")


@pytest.mark.parametrize("width", [80, 200])
def test_no_name_of_a_class_is_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(prepare_report, "console", Console(file=text, width=width))
    reason = "Some words, and rarevox.transforms.LesionBalancedSampler would draw small ones as often as large ones."
    sampler = Choice("sampler", {"_target_": "rarevox.transforms.ClassBalancedSampler"}, reason)
    rest = [Choice("normalisation", {"_target_": "a.ZScored", "keys": "image", "region": "nonzero"}, "Why " * 30)]
    prepare_report.show_plan([sampler, *rest, Choice("background_share", 0.5, "Half.")], Path("out"), named=True)
    for name in ("rarevox.transforms.LesionBalancedSampler", "ClassBalancedSampler", "background_share"):
        assert name in text.getvalue()
    assert all(len(line) <= width for line in text.getvalue().splitlines() if "│" in line)
