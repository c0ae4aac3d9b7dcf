"""A run of nested regions from an nnU-Net dataset to scores: trained, evaluated, predicted, averaged, calibrated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow

from rarevox.pipeline.bundle import METADATA
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.evaluation.tune_threshold import tune_threshold
from rarevox.pipeline.export.export import load
from rarevox.pipeline.inference.ensemble import EnsembleSegmenter
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.training.configured import checked
from rarevox.pipeline.training.record.batch_record import read_record
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from rarevox.pipeline.trust.sums import write_sums
from tests.conftest import SMALL
from tests.nested import REGIONS, VALUES, write_nested

QUICK = (
    *SMALL,
    "log#tensorboard=false",
    "validations=1",
    "batch_record#keep=true",
    "augmentation_strength=light",
    "intensity_change=0.1",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scans of nested balls with the labels 7, 250 and 2, as nnU-Net has them."""
    return write_nested(tmp_path_factory.mktemp("nested") / "source")


@pytest.fixture(scope="module")
def dataset(source: Path) -> Path:
    """Prepared: two held out, two folds."""
    assert prepare(source, source.parent / "dataset", holdout=0.34, folds=2) == 0
    return source.parent / "dataset"


@pytest.fixture(scope="module")
def run(dataset: Path) -> Path:
    """A short run of regions."""
    folder = dataset.parent / "run"
    how: dict[str, Any] = {"config_files": ["regions"], "settings": QUICK, "device": "cpu"}
    assert train(dataset, folder, **how, iterations=40) == 0
    return folder


def _masks(labels: np.ndarray) -> list[np.ndarray]:
    return [np.isin(labels, values) for values in REGIONS.values()]


def test_a_run_keeps_its_regions_and_puts_labels_in_the_order_of_depth(run: Path) -> None:
    for stage in ("train", "evaluate", "inference"):
        config = yaml.safe_load((run / "configs" / f"{stage}.yaml").read_text())
        assert config["regions"] == REGIONS
        assert list(config["regions"]) == ["whole", "core", "hot"]
        assert config["label_values"] == [0, *VALUES]
        assert config["structures"] == ["label_7", "label_250", "hot"]
        assert config["out_channels"] == 3
    outputs = json.loads((run / METADATA).read_text())["network_data_format"]["outputs"]["pred"]
    assert outputs["channel_def"] == {"0": "whole", "1": "core", "2": "hot"}
    assert "whole = 2 + 7 + 250, core = 2 + 250, hot = 2" in (run / "docs" / "README.md").read_text()
    state = torch.load(run / "models" / "model.pt", weights_only=True)
    assert next(tensor for name, tensor in state.items() if name == "classifier.weight").shape[0] == 3
    about = load(run)[2]
    assert about["regions"] == REGIONS and "logits above 0" in about["output"]


def test_prepare_says_that_regions_are_nested(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(source, tmp_path / "dataset") == 0
    assert "whole ⊃ core ⊃ hot" in capsys.readouterr().err


def test_training_tells_the_dice_of_the_regions(run: Path) -> None:
    rows = list(read_rows(run / "logs" / "validation.jsonl"))
    assert set(rows[-1]["dice"]) == {"whole", "core", "hot"}
    record = read_record(run)
    assert record is not None and record["dice"].shape == (40, 3)
    assert (record["foreground_share"] <= 1).all()


def test_evaluation_scores_regions_and_labels_against_the_files(run: Path, dataset: Path) -> None:
    assert evaluate(run, dataset, device="cpu") == 0
    result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert set(result["structures"]) == {"label_7", "label_250", "hot", "whole", "core"}
    assert set(result["curves"]["structures"]) == {"whole", "core", "hot"}
    data = Dataset.load(dataset)
    for case in data.section("test"):
        file = run / "evaluation" / "test" / "predictions" / f"{case['case']}_seg.nii.gz"
        found, wanted = (np.asarray(nib.load(name).dataobj) for name in (file, case["label"]))
        assert set(np.unique(found)) <= {0, *VALUES}
        for name, mine, theirs in zip(REGIONS, _masks(found), _masks(wanted), strict=True):
            dice = 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
            (row,) = (one for one in result["cases"] if one["case"] == case["case"] and one["structure"] == name)
            assert row["dice"] == pytest.approx(dice)
    assert result["structures"]["whole"]["dice"]["mean"] > 0.6  # it learnt: the balls are 40 brighter than noise of 8


def test_probabilities_fall_from_region_to_region_and_say_the_labels(run: Path, source: Path, tmp_path: Path) -> None:
    scan = source / "imagesTr" / "case_1_0000.nii.gz"
    how: dict[str, Any] = {"device": "cpu", "probabilities": "uint16", "lesions": True}
    for thresholds in ({}, {"core": "0.8"}):
        assert predict(run, [scan], tmp_path, **how, thresholds=thresholds) == 0
        labels = np.asarray(nib.load(tmp_path / "case_1_seg.nii.gz").dataobj)
        shown = [nib.load(tmp_path / f"case_1_prob_{name}.nii.gz").get_fdata() for name in REGIONS]
        for outer, inner in zip(shown, shown[1:], strict=False):
            assert (inner <= outer + 1e-9).all()
        limits = [0.5, float(thresholds.get("core", 0.5)), 0.5]
        inside = np.ones(labels.shape, bool)
        for mask, p, limit in zip(_masks(labels), shown, limits, strict=True):
            inside &= p > limit
            clear = abs(p - limit) > 1e-4  # the files round to 1/65535
            assert np.array_equal(mask[clear & inside], inside[clear & inside])
            assert not mask[clear & (p < limit)].any()
    rows = (tmp_path / "lesions.csv").read_text().splitlines()
    assert {row.split(",")[1] for row in rows[1:]} <= set(REGIONS)
    assert rows[1].split(",")[1] == "whole"


@pytest.mark.parametrize("settings", [(), ("spacing=[1.3,1.1,1.7]",), ("inferer#flips=[0,1]",)])
def test_ensembles_of_equal_runs_give_the_labels_of_one(run: Path, source: Path, settings: tuple[str, ...]) -> None:
    item = {"case": "a", "image": str(source / "imagesTr" / "case_2_0000.nii.gz")}
    how: dict[str, Any] = {"device": "cpu", "settings": (*settings, "precision#name=float32")}
    single, several = Segmenter(run, **how), EnsembleSegmenter([run, run], **how)
    labels = single.segment(single.read(item))
    assert set(np.unique(labels)) == {0, *VALUES}
    assert np.mean(several.segment(several.read(item)) != labels) < 1e-3  # the odd voxel on a threshold


def test_monai_runs_the_bundle_to_the_same_labels(
    run: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans").mkdir()
    shutil.copy(source / "imagesTr" / "case_0_0000.nii.gz", tmp_path / "scans" / "case_0.nii.gz")
    assert predict(run, [tmp_path / "scans"], tmp_path / "ours", device="cpu") == 0
    for spacing in (None, [1.3, 1.1, 1.7]):  # labels from tiles, and from interpolated scores
        monkeypatch.chdir(run)
        workflow = ConfigWorkflow(
            config_file="configs/inference.yaml",
            meta_file="configs/metadata.json",
            logging_file=False,
            workflow_type="infer",
            dataset_dir=str(tmp_path / "scans"),
            output_dir=str(tmp_path / "theirs"),
            spacing=spacing,
            **{"device#name": "cpu"},
        )
        workflow.initialize()
        workflow.run()
        ours = tmp_path / "ours" / "case_0_seg.nii.gz"
        if spacing:
            predict(run, [tmp_path / "scans"], tmp_path / "ours", device="cpu", settings=[f"spacing={spacing}"])
        mine, theirs = (np.asarray(nib.load(f).dataobj) for f in (ours, tmp_path / "theirs" / "case_0_seg.nii.gz"))
        assert np.array_equal(mine, theirs)
        assert (mine == VALUES[0]).any()


def test_a_run_goes_on_and_is_calibrated(run: Path, dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    moved = tmp_path / "moved"
    shutil.copytree(dataset.parent, moved, ignore=shutil.ignore_patterns("run", "cache"))
    assert train(moved / "dataset", copy, iterations=45, device="cpu", resume=True) == 0
    before = Segmenter(copy, device="cpu")
    item = {"case": "a", "image": Dataset.load(dataset).section("test")[0]["image"]}
    labels = before.segment(before.read(item))
    assert calibrate(copy, dataset, device="cpu") == 0
    after = Segmenter(copy, device="cpu")
    assert after.inferer.temperature != 1.0
    assert np.array_equal(after.segment(after.read(item)), labels)


def test_thresholds_and_rules_are_chosen_by_region(run: Path, dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    state["classifier.weight"] -= 0.2  # of features that are never negative: a lower threshold finds more
    torch.save(state, path)
    write_sums(copy)
    section: dict[str, Any] = {"section": "validation", "device": "cpu"}
    assert evaluate(copy, dataset, output=tmp_path / "before", **section) == 0
    assert tune_threshold(copy, dataset, device="cpu") == 0
    tuned = json.loads((copy / "evaluation" / "operating_points.json").read_text())
    assert tuned["chosen"] and set(tuned["structures"]) == set(REGIONS)
    assert tuned["tried"]["confidences"] == [0.0]
    assert all("confidence" not in point for point in tuned["chosen"].values())
    assert evaluate(copy, dataset, output=tmp_path / "tuned", **section) == 0
    before, after = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("before", "tuned"))
    means = [{name: one["structures"][name]["dice"]["mean"] for name in REGIONS} for one in (before, after)]
    assert all(means[1][name] >= means[0][name] - 1e-9 for name in REGIONS)
    assert any(means[1][name] > means[0][name] for name in tuned["chosen"])
    if len(tuned["chosen"]) == 1:  # else each was told beside the others as they were then
        (name,) = tuned["chosen"]
        assert tuned["structures"][name]["with"]["mean"] == pytest.approx(means[1][name], abs=1e-9)
    assert after["context"]["operating_points"] == tuned["chosen"]
    assert tune_post_processing(copy, dataset, device="cpu") == 0
    rules = json.loads((copy / "evaluation" / "post_processing.json").read_text())
    assert set(rules["without"]) == set(REGIONS) and set(rules["chosen"]) <= set(REGIONS)
    for name in REGIONS:
        assert rules["without"][name] == pytest.approx(means[1][name], abs=1e-9)
        assert rules["with"][name] >= rules["without"][name]
    assert evaluate(copy, dataset, output=tmp_path / "clean", **section) == 0
    clean = json.loads((tmp_path / "clean" / "metrics.json").read_text())
    for name in REGIONS:
        assert clean["structures"][name]["dice"]["mean"] == pytest.approx(rules["with"][name], abs=1e-9)


def test_post_processing_is_by_region(run: Path, source: Path) -> None:
    item = {"case": "a", "image": str(source / "imagesTr" / "case_2_0000.nii.gz")}
    plain = Segmenter(run, device="cpu")
    clean = Segmenter(run, device="cpu", settings=["post_processing#core#min_ml=1000"])
    before, after = (one.segment(one.read(item)) for one in (plain, clean))
    assert (before == VALUES[1]).any()
    assert set(np.unique(after)) == {0, VALUES[0]}  # no core is as large, and none of it is lost to the whole
    assert np.array_equal(before != 0, after != 0)


def test_an_inferer_that_knows_no_regions_is_refused(run: Path) -> None:
    with pytest.raises(RequestError, match="of which its inferer knows nothing"):
        Segmenter(run, device="cpu", settings=["inferer#decision=null"])
    with pytest.raises(RequestError, match="no structure is called 'label_7'; there are whole, core, hot"):
        Segmenter(run, device="cpu", settings=["operating_points#label_7#threshold=0.3"])
    with pytest.raises(RequestError, match="core is a nested region, and these have thresholds, no confidence"):
        Segmenter(run, device="cpu", settings=["operating_points#core#confidence=0.3"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["learn=both"], "learn is 'both'; expected labels, regions, or the names"),
        (["learn=[whole]"], "no region tells the labels hot = 2 and label_7 = 7 and label_250 = 250 apart"),
        (["learn=[whole,cold]"], "no structure is called 'cold'"),
        (["loss={_target_: DiceCELoss, sigmoid: true}"], "DiceCELoss is no loss of rarevox.losses"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_any_volume_is_read(
    dataset: Path, settings: list[str], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        checked(Dataset.load(dataset), None, None, ["regions"], settings, {})


def test_a_dataset_without_regions_is_told_how_to_get_them(dataset_dir: Path) -> None:
    with pytest.raises(RequestError, match="has no unions of labels that could be nested regions"):
        checked(Dataset.load(dataset_dir), None, None, ["regions"], [], {})


@pytest.mark.parametrize("loss", ["component_dice_ce", "dice_topk", "two_optimizers", "wce", "ss", "dl2"])
def test_losses_of_every_kind_take_the_regions(dataset: Path, tmp_path: Path, loss: str) -> None:
    how: dict[str, Any] = {"loss": loss, "config_files": ["regions"], "device": "cpu"}
    settings = [one for one in QUICK if not one.startswith("optimizer")]
    assert train(dataset, tmp_path / "run", **how, settings=[*settings, "validation_cases=0"], iterations=2) == 0


def test_labels_are_learnt_from_the_same_dataset_as_before(dataset: Path) -> None:
    _, config = checked(Dataset.load(dataset), None, None, [], [], {})
    assert config["regions"] == {} and config["label_values"] == [0, 2, 7, 250]


def test_classes_of_the_plan_follow_the_order_of_depth(dataset: Path) -> None:
    _, config = checked(Dataset.load(dataset), None, None, ["regions"], ["lesion_library#classes=[1,3]"], {})
    assert config["lesion_library"]["classes"] == [2, 3]  # hot (2) and label_250, the last two of three
    settings = ["lesion_library#classes=[1,3]", "lesion_library#map_class=1"]
    _, config = checked(Dataset.load(dataset), None, None, ["regions"], settings, {})
    assert config["lesion_library"]["map_class"] == config["label_values"].index(2)  # what class 1 was before
