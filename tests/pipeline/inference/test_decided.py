"""Operating points of a run: the same labels tile by tile, slab by slab, resampled, in an ensemble and as a bundle."""

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
from scipy import ndimage

from rarevox.pipeline.build import build
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.inference.decided import threshold_settings, with_decision
from rarevox.pipeline.inference.ensemble import EnsembleSegmenter
from rarevox.pipeline.inference.points import check_points
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter

LOW = "operating_points#ball#threshold=0.05"
SURE = "operating_points#ball#confidence=0.6"


class Whole:
    """Keeps the probabilities of a scan."""

    def begin(self, shape: tuple[int, ...]) -> None:
        self.p = torch.zeros((3, *shape))
        self.p[0] = 1

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        self.p[(slice(None), *where)] = log_probabilities.exp()


@pytest.fixture
def item(task_dir: Path) -> dict[str, str]:
    return {"case": "x", "image": str(task_dir / "imagesTr" / "case_00.nii.gz")}


def _by_hand(p: torch.Tensor, thresholds: list[float], confidence: float) -> np.ndarray:
    """Labels by the definition, from probabilities: the weighted argmax, then components of the ball that are sure."""
    w = np.array([1.0, *((1 - t) / t for t in thresholds)]).reshape(3, 1, 1, 1)
    weighted = w * p.numpy()
    labels = weighted.argmax(0)
    score = p.numpy()[1] / (p.numpy()[1] + np.maximum(weighted[0], weighted[2]))
    components, count = ndimage.label(labels == 1, np.ones((3, 3, 3)))
    for number in range(1, count + 1):
        if score[components == number].max() < confidence:
            labels[components == number] = 0
    return labels


@pytest.mark.parametrize("more", [[], ["spacing=[1.1,1.0,1.4]"], ["inferer#flips=[0]", "temperature=1.7"]])
@pytest.mark.parametrize(("points", "thresholds", "sure"), [([LOW], [0.05, 0.5], 0.0), ([LOW, SURE], [0.05, 0.5], 0.6)])
def test_labels_are_those_of_the_definition(
    run_dir: Path, item: dict[str, str], more: list[str], points: list[str], thresholds: list[float], sure: float
) -> None:
    seen = Whole()
    segmenter = Segmenter(run_dir, device="cpu", settings=[*more, *points])
    labels = segmenter._both(segmenter.read(item), seen)[0]
    plain = Segmenter(run_dir, device="cpu", settings=more)
    before = plain.segment(plain.read(item))
    wanted = _by_hand(seen.p, thresholds, sure)
    # A voxel may differ where two weighted probabilities agree to rounding; there are none here.
    assert np.array_equal(labels, wanted)
    assert (labels == 1).sum() != (before == 1).sum()


def test_the_bundle_gives_the_same_labels(run_dir: Path, item: dict[str, str]) -> None:
    for spacing in (None, [1.1, 1.0, 1.4]):
        settings = [LOW, SURE, f"spacing={json.dumps(spacing)}"]
        segmenter = Segmenter(run_dir, device="cpu", settings=settings)
        data = segmenter.read(item)
        config = yaml.safe_load((run_dir / "configs" / "evaluate.yaml").read_text())
        config |= {"operating_points": {"ball": {"threshold": 0.05, "confidence": 0.6}}, "spacing": spacing}
        config["device"]["name"] = "cpu"
        prediction = build(config, "inferer")(data["image"][None], segmenter.network)[0]
        assert prediction.is_floating_point()
        out = build(config, "postprocessing")({**data, "pred": prediction})
        labels = segmenter.segment(data)
        assert np.array_equal(out["pred"][0], labels)
        assert (labels == 1).any()


def test_an_ensemble_decides_on_its_mean(run_dir: Path, item: dict[str, str]) -> None:
    both = EnsembleSegmenter([run_dir, run_dir], device="cpu", settings=[LOW, SURE])
    alone = Segmenter(run_dir, device="cpu", settings=[LOW, SURE])
    assert np.array_equal(both.segment(both.read(item)), alone.segment(alone.read(item)))


def test_one_half_changes_nothing(run_dir: Path, item: dict[str, str]) -> None:
    plain = Segmenter(run_dir, device="cpu")
    half = Segmenter(run_dir, device="cpu", settings=["operating_points#ball#threshold=0.5"])
    assert np.array_equal(plain.segment(plain.read(item)), half.segment(half.read(item)))


def test_a_run_of_an_earlier_version_takes_them(run_dir: Path, item: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    for path in (run / "configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        for key in ("operating_points", "decision"):
            config.pop(key)
        config["inferer"].pop("decision")
        for step in config.get("postprocessing", {"transforms": []})["transforms"]:
            step.pop("inferer", None) if isinstance(step, dict) else None
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    old = Segmenter(run, device="cpu", settings=[LOW, SURE])
    new = Segmenter(run_dir, device="cpu", settings=[LOW, SURE])
    assert np.array_equal(old.segment(old.read(item)), new.segment(new.read(item)))
    earlier = yaml.safe_load((run / "configs" / "evaluate.yaml").read_text())
    now = yaml.safe_load((run_dir / "configs" / "evaluate.yaml").read_text())
    assert with_decision(earlier)["postprocessing"] == now["postprocessing"]


def test_predict_takes_thresholds(run_dir: Path, item: dict[str, str], tmp_path: Path) -> None:
    scans: list[Any] = [item["image"]]
    assert predict(run_dir, scans, tmp_path / "plain", device="cpu") == 0
    assert predict(run_dir, scans, tmp_path / "low", device="cpu", thresholds={"ball": "0.05"}) == 0
    plain, low = (
        np.asarray(nib.load(next((tmp_path / name).glob("*_seg.nii.gz"))).dataobj) for name in ("plain", "low")
    )
    assert (low == 1).sum() > (plain == 1).sum()
    told = json.loads((tmp_path / "low" / "predictions.json").read_text())
    assert told["settings"] == [LOW]
    with pytest.raises(RequestError, match="other settings"):
        predict(run_dir, [str(Path(item["image"]).with_name("case_01.nii.gz"))], tmp_path / "low", device="cpu")


def test_wrong_requests(run_dir: Path, dataset_dir: Path) -> None:
    for text in ("0", "1", "half", "nan"):
        with pytest.raises(RequestError, match="--threshold ball"):
            threshold_settings({"ball": text})
    for asked in (predict, evaluate):
        with pytest.raises(RequestError, match=r"--threshold Bal: .*; did you mean 'ball'\?"):
            asked(run_dir, *({predict: [["x"], "out"], evaluate: [dataset_dir]}[asked]), thresholds={"Bal": "0.3"})
    with pytest.raises(RequestError, match="no structure is called 'bal'"):
        Segmenter(run_dir, device="cpu", settings=["operating_points#bal#threshold=0.3"])
    with pytest.raises(RequestError, match="knows none"):
        check_points({"operating_points": {"a": {"threshold": 0.3}}, "structures": ["a"]}, inferer=object())
