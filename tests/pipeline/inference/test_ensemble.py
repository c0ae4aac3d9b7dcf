from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.inference.ensemble import EnsembleSegmenter
from rarevox.pipeline.inference.entropy import EntropyMap
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter

Variant = Callable[..., Path]


@pytest.fixture(scope="module")
def item(task_dir: Path) -> dict[str, str]:
    return {"case": "a", "image": str(task_dir / "imagesTr" / "case_03.nii.gz")}


@pytest.fixture(scope="module")
def variant(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """Makes copies of the run with other weights and other configurations."""

    def make(noise: float = 0.0, seed: int = 0, **keys: object) -> Path:
        folder = tmp_path_factory.mktemp("variant") / "run"
        shutil.copytree(run_dir, folder)
        state = torch.load(folder / "models" / "model.pt", weights_only=True)
        torch.manual_seed(seed)
        for name, tensor in state.items():
            if name.endswith("conv.weight") or name == "classifier.weight":
                state[name] = tensor + noise * tensor.std() * torch.randn_like(tensor)
        torch.save(state, folder / "models" / "model.pt")
        for stage in ("inference", "evaluate"):
            path = folder / "configs" / f"{stage}.yaml"
            path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys, sort_keys=False))
        return folder

    return make


def labels_of(segmenter: Segmenter, item: dict[str, str]) -> np.ndarray:
    return segmenter.segment(segmenter.read(item))


@pytest.mark.parametrize("settings", [(), ("spacing=[1.3, 1.1, 1.7]",), ("inferer#flips=[0]",)])
def test_equal_runs_give_the_single_run_s_labels(
    run_dir: Path, item: dict[str, str], settings: tuple[str, ...]
) -> None:
    single = labels_of(Segmenter(run_dir, device="cpu", settings=settings), item)
    assert single.any()
    for score_gb in (None, 1e-5):  # in one slab, and plane by plane
        ensemble = EnsembleSegmenter([run_dir] * 3, device="cpu", settings=settings, score_gb=score_gb)
        (found,) = ensemble([item])
        assert found.labels is not None, found.reason
        assert (found.labels == single).mean() > (0.9999 if settings else 1 - 1e-9)
        assert found.notes is not None
        assert found.notes["ensemble"] == 3
        assert (found.notes["slabs"] == 1) == (score_gb is None)


def test_runs_that_differ_are_averaged_on_the_scan_s_grid(
    run_dir: Path, variant: Variant, item: dict[str, str]
) -> None:
    """Against the mean of each run's softmax, computed over the whole scan in its orientation of the file."""
    runs = [run_dir, variant(noise=0.5, seed=1), variant(noise=0.5, seed=2)]
    total: torch.Tensor | int = 0
    for run in runs:
        single = Segmenter(run, device="cpu")
        image = single.read(item)["image"]
        with torch.no_grad(), single.inferer.precision.autocast():
            logits = single.network(image.as_tensor()[None])[0]
        probabilities = logits.float().softmax(0)
        # Case 3 of the task is mirrored along x: its file runs to the left, the network's grid to the right.
        total = total + probabilities.flip(1)
    expected = total.argmax(0).numpy()
    singles = [labels_of(Segmenter(run, device="cpu"), item) for run in runs]
    assert any((one != expected).any() for one in singles)  # the runs do disagree
    assert (labels_of(EnsembleSegmenter(runs, device="cpu"), item) == expected).mean() > 0.9999


def test_every_run_keeps_its_own_preprocessing_and_grid(run_dir: Path, variant: Variant, item: dict[str, str]) -> None:
    coarse = variant(spacing=[2.0, 2.0, 2.0])
    ensemble = EnsembleSegmenter([run_dir, variant(noise=0.1), coarse], device="cpu")
    data = ensemble.read(item)
    assert data["members"][0] is data["members"][1]  # preprocessed alike, read once
    assert data["members"][2]["image"].shape[1] < data["image"].shape[1]
    labels = ensemble.segment(data)
    assert labels.shape == nib.load(item["image"]).shape
    assert labels.any()


def test_probabilities_are_shown_on_the_scan_s_grid(run_dir: Path, item: dict[str, str]) -> None:
    """Equal runs: the entropy map of the ensemble is that of the run, to its step of 1/255."""
    (single,) = Segmenter(run_dir, device="cpu")([item], lambda _: EntropyMap())
    (found,) = EnsembleSegmenter([run_dir] * 2, device="cpu")([item], lambda _: EntropyMap())
    difference = np.abs(found.watch.values.astype(int) - single.watch.values)
    assert single.watch.values.max() > 100
    assert difference.max() <= 1


def test_a_region_goes_for_all_runs(run_dir: Path, variant: Variant, item: dict[str, str], tmp_path: Path) -> None:
    scan = nib.load(item["image"])
    region = np.zeros(scan.shape, np.uint8)
    region[4:18, 4:16, 3:12] = 1
    region[4:8] = 0
    nib.save(nib.Nifti1Image(region, scan.affine), tmp_path / "roi.nii.gz")
    ensemble = EnsembleSegmenter([run_dir, variant(noise=0.3)], device="cpu")
    whole = labels_of(ensemble, item)
    inside = labels_of(ensemble, item | {"roi": str(tmp_path / "roi.nii.gz")})
    assert whole.any()
    assert (inside == whole * (region > 0)).mean() > 0.9999
    assert not inside[region == 0].any()


def test_predict_and_evaluate_take_further_runs(
    run_dir: Path, variant: Variant, dataset_dir: Path, item: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    other = variant(noise=0.3)
    assert predict(run, [item["image"]], tmp_path / "out", device="cpu", others=[other]) == 0
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert written["ensemble"] == [str(run.resolve()), str(other.resolve())]
    assert written["scans"][0]["ensemble"] == 2
    card = (run / "docs" / "README.md").read_text()
    assert evaluate(run, dataset_dir, device="cpu", others=[other]) == 0
    result = json.loads((run / "evaluation" / "test_ensemble" / "metrics.json").read_text())
    assert result["context"]["ensemble"] == [str(run.resolve()), str(other.resolve())]
    assert not (run / "evaluation" / "test").exists()  # the run's own figures and its card are left alone
    assert (run / "docs" / "README.md").read_text() == card


def test_runs_of_other_structures_are_refused(run_dir: Path, variant: Variant) -> None:
    for keys, words in (
        ({"structures": ["ball", "cube"]}, r"has the structures \['ball', 'cube'\] and .* \['ball', 'box'\]"),
        ({"label_values": [0, 1, 5]}, "has the label values"),
        ({"channels": ["t1"]}, "has the channels"),
    ):
        with pytest.raises(RequestError, match=words):
            EnsembleSegmenter([run_dir, variant(**keys)], device="cpu")
    with pytest.raises(RequestError, match="is not a run"):
        EnsembleSegmenter([run_dir, run_dir / "nothing"], device="cpu")


def test_scans_that_nobody_corrected_are_corrected_for_the_runs_that_need_it(run_dir: Path, variant: Variant) -> None:
    corrected = variant()
    path = corrected / "configs" / "inference.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"n4": True}, sort_keys=False))
    for runs in ([run_dir, corrected], [corrected, run_dir]):
        ensemble = EnsembleSegmenter(runs, "evaluate", device="cpu", uncorrected=True)
        assert [member.config["n4"] for member in ensemble.members] == [run is corrected for run in runs]
    copies = EnsembleSegmenter([run_dir, corrected], "evaluate", device="cpu")  # of a dataset that is corrected
    assert [member.config["n4"] for member in copies.members] == [False, False]


@pytest.mark.parametrize("spacing", [(), ("spacing=[1.3, 1.1, 1.7]",)])
def test_what_an_inferer_warns_of_is_in_the_row(
    run_dir: Path, item: dict[str, str], spacing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one run and of an ensemble, also where only the first of several slabs was warned of."""
    runs = [Segmenter(run_dir, device="cpu", settings=spacing), EnsembleSegmenter([run_dir] * 2, settings=spacing)]
    for runner in runs:
        runner.score_gb, warned = 1e-5, []
        for member in getattr(runner, "members", [runner]):
            plain = member.inferer.inside

            def inside(*args, of=member.inferer, plain=plain, warned=warned, **kwargs) -> torch.Tensor:
                found = plain(*args, **kwargs)
                of.notes |= {} if warned else {"warning": "in pieces"}
                warned.append(True)
                return found

            monkeypatch.setattr(member.inferer, "inside", inside)
        (found,) = runner([item])
        assert found.notes is not None, found.reason
        assert found.notes["warning"] == "in pieces"
        (found,) = runner([item])
        assert found.notes is not None and "warning" not in found.notes


def test_a_network_with_instance_norms_has_the_labels_of_the_whole_scan_in_slabs_and_regions(
    run_dir: Path, item: dict[str, str], tmp_path: Path
) -> None:
    """Against one pass over the scan; in its orientation of the file, see above."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.InstanceNorm3d(4), torch.nn.ReLU(), torch.nn.Conv3d(4, 3, 1)
    ).eval()
    mask = np.zeros((22, 20, 18), np.uint8)
    mask[3:12, 15:20, 4:6] = 1
    nib.save(nib.Nifti1Image(mask, nib.load(item["image"]).affine), tmp_path / "mask.nii.gz")
    ensemble = EnsembleSegmenter([run_dir] * 2, device="cpu", settings=["precision#name=float32"], score_gb=1e-5)
    single = Segmenter(run_dir, device="cpu", settings=["precision#name=float32", "inferer#memory_gb=1e-6"])
    for one in (single, *ensemble.members):
        one.network = network
    with torch.no_grad():
        expected = network(single.read(item)["image"].as_tensor()[None])[0].argmax(0).flip(0).numpy()
    assert (labels_of(single, item) == expected).mean() > 0.999
    assert (labels_of(ensemble, item) == expected).mean() > 0.999
    inside = labels_of(single, item | {"roi": str(tmp_path / "mask.nii.gz")})
    assert (inside == expected * mask).mean() > 0.9999 and inside.any()
