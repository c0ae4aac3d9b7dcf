from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import compose, read_yaml
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.export.export import images, load
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.training import learn
from rarevox.pipeline.training.learn import learn_normalisation
from rarevox.pipeline.training.train import train
from rarevox.transforms.intensity.nyul import learn_landmarks
from rarevox.transforms.reader import read_scan
from tests.conftest import SMALL


def config_of(dataset_dir: Path, *settings: str) -> dict:
    return compose(
        "train", dataset=Dataset.load(dataset_dir), config_files=["nyul"], settings=[*SMALL, *settings]
    ).config


def test_landmarks_are_those_of_the_fold_s_training_cases(dataset_dir: Path) -> None:
    data = Dataset.load(dataset_dir)
    config = config_of(dataset_dir, "normalisation#region=image", "fold=1")
    before = deepcopy(config)
    learnt = learn_normalisation(config, data)["normalisation"]["landmarks"]
    assert config == before
    images = [read_scan(case["image"]).array for case in data.section("train", fold=1)]
    values = [np.percentile(image, [1, *range(10, 100, 10), 99]) for image in images]
    mean = np.mean([(v - v[0]) / (v[-1] - v[0]) for v in values], axis=0)
    assert np.allclose(learnt[0], (mean - mean[5]) * 2 * 1.2815516 / (mean[9] - mean[1]), atol=1e-4)
    assert all(type(value) is float for value in learnt[0])


def test_nothing_is_read_where_nothing_is_to_be_learnt(dataset_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset.load(dataset_dir)

    def never(config: object, key: str) -> None:
        raise AssertionError(key)

    monkeypatch.setattr(learn, "build", never)
    known = config_of(dataset_dir, f"normalisation#landmarks={[list(range(11))]}")
    composed = (compose("train", dataset=data), compose("train", dataset=data, config_files=["ct"]))
    for config in (known, *(one.config for one in composed)):
        assert learn_normalisation(config, data) == config


def test_a_step_after_others_learns_from_what_they_leave(dataset_dir: Path, tmp_path: Path) -> None:
    """After a multiplication by −1 the landmarks are those of the negated images, not their own."""
    data = Dataset.load(dataset_dir)
    nyul = {"_target_": "rarevox.transforms.NyulNormalised", "keys": "image", "region": "image", "landmarks": None}
    negate = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: -x"}
    config = compose("train", dataset=data, settings=SMALL).config
    config["normalisation"] = {"_target_": "Compose", "transforms": [negate, nyul]}
    learnt = learn_normalisation(config, data)["normalisation"]["transforms"][1]["landmarks"]
    images = [-torch.from_numpy(read_scan(case["image"]).array) for case in data.section("train", fold=0)]
    assert np.allclose(learnt, learn_landmarks([(image, None) for image in images]), atol=1e-4)


def test_a_preprocessing_without_the_normalisation_is_refused(dataset_dir: Path) -> None:
    config = config_of(dataset_dir)
    config["preprocessing"]["transforms"].remove("@normalisation")
    with pytest.raises(RequestError, match="does not list"):
        learn_normalisation(config, Dataset.load(dataset_dir))


def test_a_run_holds_its_landmarks_in_every_configuration(dataset_dir: Path, tmp_path: Path) -> None:
    """Training writes them; prediction works with them."""
    run = tmp_path / "run"
    settings = [*SMALL, "sampler={_target_: rarevox.transforms.ForegroundUniformSampler, min_foreground: 5}"]
    assert train(dataset_dir, run, config_files=["nyul"], settings=settings, iterations=3, device="cpu") == 0
    configs = [read_yaml(run / "configs" / f"{stage}.yaml") for stage in ("train", "evaluate", "inference")]
    landmarks = [config["normalisation"]["landmarks"] for config in configs]
    assert landmarks[0] == landmarks[1] == landmarks[2]
    assert len(landmarks[0]) == 1
    assert len(landmarks[0][0]) == 11
    counts = json.loads((run / "logs" / "patches.json").read_text())
    assert counts["patches"] == 6
    scans = [Dataset.load(dataset_dir).section("test")[0]["image"]]
    assert predict(run, scans, output=tmp_path / "out") == 0
    assert list((tmp_path / "out").glob("*_seg.nii.gz"))


def test_several_ct_windows_are_channels_of_one_scan(dataset_dir: Path, tmp_path: Path) -> None:
    run, scan = tmp_path / "run", Dataset.load(dataset_dir).section("test")[0]["image"]
    settings = [*SMALL, "normalisation#windows=[[0, 1], [0.5, 2]]", "in_channels=2", "validations=2"]
    assert train(dataset_dir, run, config_files=["ct"], settings=settings, iterations=2, device="cpu") == 0
    assert predict(run, [scan], output=tmp_path / "out") == 0
    assert list((tmp_path / "out").glob("*_seg.nii.gz"))
    network, geometry, about = load(run)
    with torch.no_grad():  # what an export is made with
        assert network(images(geometry, about["in_channels"])[0]).isfinite().all()
    said = json.loads((run / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    name = about["channels"][0]
    assert (said["num_channels"], said["channel_def"]) == (2, {"0": f"{name}, 1", "1": f"{name}, 2"})


@pytest.mark.parametrize(
    ("overlay", "setting", "kind"),
    [
        ("robust", "normalisation#clip=null", "RobustZScored"),
        ("white_matter", "normalisation#peaks=[last, largest]", "WhiteMatterZScored"),
        ("nyul", "normalisation#region=mask", "NyulNormalised"),
        ("ct", "normalisation#windows=[brain, [0, 160]]", "CTWindowd"),
    ],
)
def test_every_overlay_builds_its_normalisation(overlay: str, setting: str, kind: str) -> None:
    config = compose("train", config_files=[overlay], settings=[setting]).config
    assert type(build(config, "normalisation")).__name__ == kind


@pytest.mark.parametrize("sampler", ["ClassBalanced", "LesionBalanced", "ForegroundUniform", "Uniform", "Grid"])
def test_every_sampler_indexes_and_draws_as_configured(sampler: str) -> None:
    """The index and the crop of a configuration get the same sampler, patch and margin, so that they fit each other."""
    config = compose("train", network="deepmedic", settings=[f"sampler#_target_=transforms.{sampler}Sampler"]).config
    index = build(config, "train#index")
    draw = build(config, "train#patch")
    label = torch.zeros(1, 70, 70, 70, dtype=torch.uint8)
    label[0, 30:33, 1, 60] = 1
    patch = draw(index({"image": label.float(), "label": label}))
    assert list(patch["label"].shape) == [1, *config["patch_size"]]
