"""Choosing post-processing: what helps is taken, what harms is not, and the run, its files and its scores say so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from rarevox.pipeline.build import build
from rarevox.pipeline.cli import main
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.choose import NOWHERE, Aim
from rarevox.pipeline.evaluation.operating.parts import Parts
from rarevox.pipeline.evaluation.operating.rules import ValidationCase, choose, trial_figures
from rarevox.pipeline.evaluation.scorer import CaseScorer
from rarevox.pipeline.evaluation.tune import RESULT_FILE
from rarevox.pipeline.inference.segment import Segmenter

OPTIONS = MetricOptions(distances=False, lesions=False)
LESIONS = MetricOptions(distances=False)
STRUCTURES = Parts({"organ": 1, "spots": 2})
DICE, F1 = Aim("dice"), Aim("lesion_f1")


def _case(name: str) -> ValidationCase:
    """Voxels of 1 mm³. The organ (64 voxels) is found with a false island of 6, the spots (two of 8) exactly."""
    reference = np.zeros((16, 12, 12), np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    reference[9:11, 2:4, 2:4] = reference[13:15, 2:4, 2:4] = 2
    labels = reference.copy()
    labels[9:15, 9, 9] = 1
    return ValidationCase(name, labels, reference, (1.0, 1.0, 1.0))


def _store(folder: Path, cases: list[ValidationCase]) -> list[Path]:
    paths = [folder / f"{number}.npz" for number in range(len(cases))]
    for path, case in zip(paths, cases, strict=True):
        case.save(path)
    return paths


def test_figures_by_hand() -> None:
    # The organ: 2·64/(70 + 64); without the island 1. The largest spot alone: 2·8/(8 + 16) = 2/3, F1 of 1 and 1/2.
    trials: list[dict[str, dict[str, Any]]] = [{}, {"organ": {"min_ml": 0.007}}, {"spots": {"largest": True}}]
    figures = trial_figures([_case("a")], STRUCTURES, trials, LESIONS, F1)
    assert figures["organ"]["dice"].tolist() == [pytest.approx([128 / 134, 1.0, 128 / 134])]
    assert figures["spots"]["dice"].tolist() == [pytest.approx([1.0, 1.0, 2 / 3])]
    assert figures["organ"]["lesion_f1"].tolist() == [pytest.approx([2 / 3, 1.0, 2 / 3])]
    assert figures["spots"]["lesion_f1"].tolist() == [pytest.approx([1.0, 1.0, 2 / 3])]
    assert list(trial_figures([_case("a")], STRUCTURES, trials, OPTIONS, DICE, of=["spots"])["spots"]) == ["dice"]


def test_what_helps_is_taken_and_what_harms_is_not(tmp_path: Path) -> None:
    result = choose(_store(tmp_path, [_case("a"), _case("b")]), STRUCTURES, OPTIONS, DICE)
    # Components under 0.01 ml are the island of 0.006 ml; the next larger volumes give the same and come later.
    assert result["chosen"] == {"organ": {"min_ml": 0.01}}
    assert result["without"] == pytest.approx({"organ": 128 / 134, "spots": 1.0})
    assert result["with"] == {"organ": 1.0, "spots": 1.0}
    spots = {str(one["rule"]): one["dice"] for one in result["candidates"]["spots"]}
    assert spots["{'largest': True}"] == pytest.approx(2 / 3)
    crossed = result["structures"]["organ"]["cross_validated"]
    assert crossed["mean"] == 1.0 and crossed["gain"]["mean"] == pytest.approx(1 - 128 / 134)
    assert result["structures"]["spots"]["reason"] == "nothing serves better"


def test_nothing_is_chosen_where_nothing_helps(tmp_path: Path) -> None:
    case = _case("a")
    perfect = [ValidationCase(name, case.reference, case.reference, case.spacing_mm) for name in "ab"]
    result = choose(_store(tmp_path, perfect), STRUCTURES, OPTIONS, DICE)
    assert result["chosen"] == {}
    assert result["with"] == result["without"] == {"organ": 1.0, "spots": 1.0}


def test_of_a_structure_that_no_case_holds_nothing_is_removed(tmp_path: Path) -> None:
    """False spots in every case: without them Dice is 1 in each, and real ones of this size would be lost."""
    cases = [_case(name) for name in "ab"]
    for case in cases:
        case.labels[12:14, 6, 6] = 2
        case.reference[case.reference == 2] = 0
        case.labels[9:15, 2:4, 2:4] = 0
    for aim, options in ((DICE, OPTIONS), (F1, LESIONS)):
        told = choose(_store(tmp_path, cases), STRUCTURES, options, aim)
        assert told["chosen"] == {"organ": {"min_ml": 0.01}}
        assert told["structures"]["spots"]["reason"] == NOWHERE


def test_a_rule_that_harms_a_structure_beside_the_others_is_not_taken(tmp_path: Path) -> None:
    """b has a true cavity of 27 voxels that false voxels of a fill, and misses one voxel elsewhere.

    Alone, a gains by losing what is under 0.05 ml, 2·64/(64 + 91) to 1, and b by its filled hole, since the cavity is
    taken. Together b would fill the cavity too: 27 voxels wrong for one right.
    """
    reference = np.zeros((18, 11, 11), np.uint8)
    reference[2:9, 2:9, 2:9] = 2
    reference[4:7, 4:7, 4:7] = 0
    reference[12:16, 2:6, 2:6] = 1
    labels = reference.copy()
    labels[4:7, 4:7, 4:7] = 1
    labels[3, 3, 3] = 0
    paths = _store(tmp_path, [ValidationCase(name, labels, reference, (1.0, 1.0, 1.0)) for name in "xy"])
    result = choose(paths, Parts({"a": 1, "b": 2}), OPTIONS, DICE)
    assert result["without"]["a"] == pytest.approx(128 / 155)
    assert next(c["dice"] for c in result["candidates"]["b"] if c["rule"] == {"fill_holes": True}) == 1.0
    assert result["chosen"] == {"a": {"min_ml": 0.05}}
    assert result["with"]["b"] == result["without"]["b"] < 1
    assert result["structures"]["b"]["reason"] == "with it the mean Dice of b falls"


def _specks(name: str, specks: int, subject: str = "") -> ValidationCase:
    """A lesion of 27 voxels, found, one of 4, found, and as many false specks of two voxels."""
    reference = np.zeros((20, 20, 20), np.uint8)
    reference[2:5, 2:5, 2:5] = 1
    reference[10:14, 2, 2] = 1
    labels = reference.copy()
    for number in range(specks):
        labels[4 * number : 4 * number + 2, 15, 15] = 1
    return ValidationCase(name, labels, reference, (1.0, 1.0, 1.0), subject)


def test_for_lesions_specks_go_at_a_cost_of_dice_that_is_bounded(tmp_path: Path) -> None:
    # F1 without a rule: precision 2 of 6 and recall 1. Under 0.003 ml go the specks, under 0.005 ml the lesion too.
    paths, parts = _store(tmp_path, [_specks("a", 4), _specks("b", 4)]), Parts({"lesion": 1})
    result = choose(paths, parts, LESIONS, F1)
    assert result["chosen"] == {"lesion": {"min_ml": 0.003}}
    assert result["lesion_f1"] == {"without": {"lesion": 0.5}, "with": {"lesion": 1.0}}
    assert result["without"]["lesion"] == pytest.approx(62 / 70) and result["with"]["lesion"] == 1.0
    assert result["structures"]["lesion"]["cross_validated"]["gain"]["mean"] == 0.5


def test_a_rule_may_not_cost_more_dice_than_is_allowed(tmp_path: Path) -> None:
    """Four cases with ten false specks of 9 voxels beside two large lesions, and one whose only lesion has 9 voxels."""
    specks = np.zeros((20, 20, 20), np.uint8)
    for number in range(10):
        specks[2 * number, :9, 19] = 1
    large, small = np.zeros_like(specks), np.zeros_like(specks)
    large[:10, :10, :10] = large[11:, :10, :10] = small[0, :9, 0] = 1
    cases = [ValidationCase(name, large | specks, large, (1.0, 1.0, 1.0)) for name in "abcd"]
    paths, parts = _store(tmp_path, [*cases, ValidationCase("e", small, small, (1.0, 1.0, 1.0))]), Parts({"lesion": 1})
    free, bound = (choose(paths, parts, LESIONS, Aim("lesion_f1", dice_cost=cost)) for cost in (0.3, 0.1))
    # F1 of the four from 2 · (2/12) / (2/12 + 1) = 2/7 to 1, of the fifth from 1 to 0; Dice 3800/3890 to 1, 1 to 0.
    assert free["chosen"] == {"lesion": {"min_ml": 0.01}}
    assert free["lesion_f1"]["without"]["lesion"] == pytest.approx((8 / 7 + 1) / 5)
    assert free["with"]["lesion"] == pytest.approx(0.8)
    assert free["without"]["lesion"] == pytest.approx((4 * 3800 / 3890 + 1) / 5)  # 0.181 more
    assert bound["chosen"] == {} and bound["structures"]["lesion"]["reason"] == "nothing serves better"


def test_a_choice_that_only_fits_its_own_cases_is_not_taken(tmp_path: Path) -> None:
    """Alone the rule helps the one and harms the other, so that chosen on either it loses on the other."""
    helped, harmed = _specks("a", 4), _specks("b", 0)
    reference = harmed.reference.copy()
    reference[0:2, 15, 15] = reference[4:6, 15, 15] = reference[8:10, 15, 15] = 1
    harmed = ValidationCase("b", reference, reference, harmed.spacing_mm)
    parts = Parts({"lesion": 1})
    result = choose(_store(tmp_path, [helped, harmed]), parts, LESIONS, F1)
    one = result["structures"]["lesion"]
    assert one["rule"] == {"min_ml": 0.003} and one["with"] > one["without"]
    assert result["chosen"] == {} and one["reason"] == "it gains nothing on cases that it was not chosen on"
    assert one["cross_validated"]["gain"]["mean"] < 0
    alone = choose(_store(tmp_path, [_specks("a", 4, "p"), _specks("b", 4, "p")]), parts, LESIONS, F1)
    assert alone["chosen"] == {}
    assert alone["structures"]["lesion"]["reason"] == "a single case, or subject, says nothing of others"


@pytest.fixture
def island_run(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run whose label maps get a false island of eight voxels of the ball in a corner."""
    found = Segmenter.__dict__["_both"]

    def with_island(self: Segmenter, data: dict[str, Any], watch: Any = None) -> Any:
        cleaner, self.cleaner = self.cleaner, lambda given: given  # type: ignore[assignment]
        labels = found(self, data, watch)[0].copy()
        self.cleaner = cleaner
        labels[-2:, -2:, -2:] = 1
        out = cleaner({"image": data["image"], "pred": labels[None]})
        return np.asarray(out["pred"])[0], np.asarray(out["raw"])[0] if "raw" in out else None

    monkeypatch.setattr(Segmenter, "_both", with_island)
    shutil.copytree(run_dir, tmp_path / "run")
    return tmp_path / "run"


def test_tuning_reaches_the_configurations_and_the_scores(
    island_run: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = island_run / "configs" / "inference.yaml"
    had = {"post_processing": {"box": {"largest": True}}}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | had))
    with pytest.raises(SystemExit) as ended:
        main(["tune-postprocessing", str(island_run), str(dataset_dir), "--device", "cpu"])
    assert ended.value.code == 0
    assert "has post-processing box: largest True, replaced by" in capsys.readouterr().err
    tuned = json.loads((island_run / "evaluation" / RESULT_FILE).read_text())
    assert tuned["chosen"]["ball"]
    assert tuned["with"]["ball"] > tuned["without"]["ball"]
    assert tuned["with"]["box"] >= tuned["without"]["box"]
    assert tuned["context"]["section"] == "validation"
    for stage in ("train", "evaluate", "inference"):
        config = yaml.safe_load((island_run / "configs" / f"{stage}.yaml").read_text())
        assert config["post_processing"] == tuned["chosen"]
    assert evaluate(island_run, dataset_dir, output=tmp_path / "out", device="cpu") == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    raw = result["without_post_processing"]
    assert raw["structures"]["ball"]["dice"]["mean"] < result["structures"]["ball"]["dice"]["mean"]
    assert raw["mean_dice"] < result["mean_dice"]
    assert result["context"]["post_processing"] == tuned["chosen"]
    shown = capsys.readouterr().out
    assert "Dice raw" in shown
    assert "without post-processing" in (tmp_path / "out" / "report.html").read_text()
    for path in (tmp_path / "out" / "predictions").glob("*_seg.nii.gz"):
        labels = np.asarray(nib.load(path).dataobj)
        assert not labels[-2:, -2:, -2:].all()


def test_the_bundle_cleans_and_scores_both_alike(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run_dir / "configs" / "evaluate.yaml").read_text())
    config |= {"post_processing": {"ball": {"min_ml": 100.0}}, "output_dir": str(tmp_path)}
    segmenter = Segmenter(run_dir, device="cpu", settings=["post_processing#ball#min_ml=100.0"])
    data = segmenter.read({"case": "x", "image": str(task_dir / "imagesTr" / "case_00.nii.gz")})
    labels, raw = segmenter._both(data)
    assert raw is not None
    assert (raw == 1).any()
    assert not (labels == 1).any()
    prediction = segmenter.inferer(data["image"][None], segmenter.network)[0]
    out = build(config, "postprocessing")({**data, "pred": prediction})
    assert np.array_equal(out["pred"][0], labels)
    assert np.array_equal(out["raw"][0], raw)
    scorer: CaseScorer = build(config, "scorer")
    scorer.add("x", labels, task_dir / "labelsTr" / "case_00.nii.gz", raw)
    result = scorer.result()
    assert result["structures"]["ball"]["dice"]["mean"] == 0
    assert result["without_post_processing"]["structures"]["ball"]["dice"]["mean"] > 0


def test_wrong_requests(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    from rarevox.pipeline.evaluation.tune import tune_post_processing

    with pytest.raises(RequestError, match="did you mean 'ball'"):
        Segmenter(run_dir, device="cpu", settings=["post_processing#bal#largest=true"])
    with pytest.raises(RequestError, match="is not a run"):
        tune_post_processing(tmp_path, dataset_dir)
