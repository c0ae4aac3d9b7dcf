from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.data import MetaTensor

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.calls.station import Station
from rarevox.pipeline.inference.outputs.asked import Asked, outputs_of
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter
from tests import forked
from tests.pipeline.inference.books import BOOKS


@pytest.fixture(scope="module")
def scans(task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans of different orientation and form codes, and one that is truncated."""
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate(("a", "b", "c")):
        volume = nib.load(task_dir / "imagesTr" / f"case_{number:02}.nii.gz")
        array = np.asarray(volume.dataobj)
        if name == "c":  # another orientation: axes permuted, so the affine's columns are too
            array, affine = array.transpose(2, 0, 1), volume.affine[:, [2, 0, 1, 3]]
            volume = nib.Nifti1Image(array, affine)
        volume.set_sform(volume.affine, 2)
        volume.set_qform(volume.affine, 1)
        nib.save(volume, folder / f"{name}.nii.gz")
    whole = (folder / "a.nii.gz").read_bytes()
    (folder / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def predictions(run_dir: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "predictions"
    assert predict(run_dir, [scans], folder, device="cpu") == 1
    return folder


def test_one_bad_scan_does_not_stop_the_rest(predictions: Path) -> None:
    rows = {row["case"]: row for row in json.loads((predictions / "predictions.json").read_text())["scans"]}
    assert {case: row["status"] for case, row in rows.items()} == {"a": "ok", "b": "ok", "broken": "failed", "c": "ok"}
    assert "broken.nii.gz" in rows["broken"]["reason"]
    assert sorted(path.name for path in predictions.glob("*.nii.gz")) == [
        "a_seg.nii.gz",
        "b_seg.nii.gz",
        "c_seg.nii.gz",
    ]


def test_label_maps_lie_on_the_grid_that_came_in(predictions: Path, scans: Path) -> None:
    for name in ("a", "b", "c"):
        scan, found = nib.load(scans / f"{name}.nii.gz"), nib.load(predictions / f"{name}_seg.nii.gz")
        assert found.shape == scan.shape
        assert np.array_equal(found.affine, scan.affine)
        assert [int(found.header[code]) for code in ("sform_code", "qform_code")] == [2, 1]
        assert set(np.unique(found.dataobj)) <= {0, 1, 2}


def test_volumes_are_voxels_times_their_size(predictions: Path) -> None:
    for row in json.loads((predictions / "predictions.json").read_text())["scans"]:
        if row["status"] == "ok":
            labels = np.asarray(nib.load(predictions / row["output"]).dataobj)
            expected = {"ball": (labels == 1).sum() * 1.5e-3, "box": (labels == 2).sum() * 1.5e-3}
            assert row["volume_ml"] == pytest.approx(expected, abs=1e-4)


def test_volumes_are_the_same_in_every_unit(run_dir: Path, scans: Path, predictions: Path, tmp_path: Path) -> None:
    """The scan in metres and in micrometres: its maps are told in millilitres, and lie where the scan lies."""
    for name, code, unit in (("metres", 1, 0.001), ("micrometres", 3, 1000.0)):
        scan = nib.load(scans / "a.nii.gz")
        other = nib.Nifti1Image(np.asarray(scan.dataobj), np.diag([unit, unit, unit, 1.0]) @ scan.affine)
        other.header["xyzt_units"] = code
        other.to_filename(tmp_path / f"{name}.nii.gz")
    assert predict(run_dir, [tmp_path], tmp_path / "out", device="cpu") == 0
    expected = next(
        row for row in json.loads((predictions / "predictions.json").read_text())["scans"] if row["case"] == "a"
    )
    for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]:
        assert row["volume_ml"] == pytest.approx(expected["volume_ml"], rel=1e-5, abs=1e-4)
        written = nib.load(tmp_path / "out" / row["output"])
        scan = nib.load(tmp_path / f"{row['case']}.nii.gz")
        assert written.header["xyzt_units"] == scan.header["xyzt_units"]
        assert np.array_equal(written.affine, scan.affine)


def test_what_is_odd_about_a_scan_stands_in_its_row(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    scan = nib.load(scans / "a.nii.gz")
    (tmp_path / "in").mkdir()
    extreme = np.asarray(scan.dataobj).copy()
    extreme[0, 0, 0] = 1e30
    for name, array in (("blank", np.zeros_like(extreme)), ("extreme", extreme), ("sound", np.asarray(scan.dataobj))):
        nib.Nifti1Image(array, scan.affine).to_filename(tmp_path / "in" / f"{name}.nii.gz")
    assert predict(run_dir, [tmp_path / "in"], tmp_path / "out", device="cpu") == 0
    rows = {row["case"]: row for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]}
    assert "warning" not in rows["sound"]
    assert rows["blank"]["warning"].startswith("every voxel is 0: it carries nothing; channel 1 is the same everywhere")
    assert "1 voxel(s) of extreme intensity outweigh all others" in rows["extreme"]["warning"]


def test_the_way_back_does_not_depend_on_how_the_file_stores_its_axes(
    run_dir: Path, scans: Path, task_dir: Path
) -> None:
    """Scan c is case 2 with its axes permuted: its label map must be that of case 2, permuted alike."""
    segmenter = Segmenter(run_dir, device="cpu")
    items = [
        {"case": "c", "image": str(scans / "c.nii.gz")},
        {"case": "2", "image": str(task_dir / "imagesTr" / "case_02.nii.gz")},
    ]
    permuted, plain = (found.labels for found in segmenter(items))
    assert permuted is not None
    assert plain is not None
    assert np.array_equal(permuted, plain.transpose(2, 0, 1))


def test_the_next_scan_is_read_while_this_one_is_computed_and_no_further(
    run_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network waits with the first scan until the second has been read; the third is not begun by then."""
    segmenter = Segmenter(run_dir, device="cpu")
    second, read = threading.Event(), []
    real_read, real_call = segmenter.read, segmenter.inferer.inside

    def reading(item: dict[str, str]) -> dict[str, object]:
        data = real_read(item)
        read.append(item["case"])
        if item["case"] == "1":
            second.set()
        return data

    def computing(*arguments: object, **options: object) -> torch.Tensor:
        assert second.wait(60)
        seen.append(list(read))
        return real_call(*arguments, **options)

    seen: list[list[str]] = []
    monkeypatch.setattr(segmenter, "read", reading)
    monkeypatch.setattr(segmenter.inferer, "inside", computing)
    items = [{"case": str(n), "image": str(task_dir / "imagesTr" / f"case_0{n}.nii.gz")} for n in range(3)]
    found = list(segmenter(items))
    assert [one.reason for one in found] == ["", "", ""]
    assert seen[0] == ["0", "1"]


def test_for_a_gpu_scans_are_pinned_where_they_are_read_and_written_where_nothing_is_computed(
    run_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that computes reads, pins and writes nothing."""
    found: dict[str, set[int]] = {"pinned": set(), "written": set()}
    here, pinned = threading.get_ident(), []

    def pin(image: MetaTensor) -> MetaTensor:
        found["pinned"].add(threading.get_ident())
        pinned.append(image)
        return image

    monkeypatch.setattr("rarevox.pipeline.inference.segment.in_pinned_memory", pin)
    segmenter = Segmenter(run_dir, device="cpu")
    segmenter.device = torch.device("cuda")
    station = Station(segmenter, outputs_of(Asked(), segmenter.config), tmp_path, {})
    stored = station.store

    def store(*arguments: Any) -> dict[str, Any]:
        found["written"].add(threading.get_ident())
        return stored(*arguments)

    monkeypatch.setattr(station, "store", store)
    items = [{"case": str(n), "image": str(task_dir / "imagesTr" / f"case_0{n}.nii.gz")} for n in range(3)]
    rows: list[dict[str, Any]] = []
    station.work(iter(enumerate({"item": item, "earlier": {}} for item in items)), lambda _, row: rows.append(row))
    assert [row["status"] for row in rows] == ["ok"] * 3 and len(pinned) == 3
    assert found["pinned"] and found["written"]
    assert here not in found["pinned"] | found["written"] and not found["pinned"] & found["written"]


def test_an_oblique_scan_comes_back_on_its_own_grid(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    """Turned by 20° about two axes in space, the voxels are the same, and so are their labels."""
    plain = nib.load(task_dir / "imagesTr" / "case_02.nii.gz")
    a, b = np.deg2rad(20), np.deg2rad(-20)
    turn = np.eye(4)
    turn[:3, :3] = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    scans = tmp_path / "scans"
    scans.mkdir()
    nib.save(plain, scans / "plain.nii.gz")
    oblique = nib.Nifti1Image(np.asarray(plain.dataobj), turn @ plain.affine)
    nib.save(oblique, scans / "oblique.nii.gz")
    assert predict(run_dir, [scans], tmp_path / "out", device="cpu") == 0
    straight, turned = (nib.load(tmp_path / "out" / f"{name}_seg.nii.gz") for name in ("plain", "oblique"))
    assert np.array_equal(turned.affine, nib.load(scans / "oblique.nii.gz").affine)
    assert np.asarray(straight.dataobj).any()
    assert np.array_equal(straight.dataobj, turned.dataobj)


def test_the_bundle_gives_the_same_labels(run_dir: Path, scans: Path, predictions: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(scans / f"{name}.nii.gz", good)
    command = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    command += ["--dataset_dir", str(good), "--output_dir", str(tmp_path / "out"), "--device#name", "cpu"]
    done = forked.run(command, cwd=run_dir)
    assert done.returncode == 0, done.stderr
    for name in ("a", "b", "c"):
        ours, theirs = (nib.load(folder / f"{name}_seg.nii.gz") for folder in (predictions, tmp_path / "out"))
        assert np.array_equal(ours.dataobj, theirs.dataobj)
        assert np.array_equal(ours.affine, theirs.affine)


def test_scans_that_are_done_can_be_kept(run_dir: Path, scans: Path, predictions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(predictions, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}
    assert predict(run_dir, [scans], folder, device="cpu", overwrite=False) == 1
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")} == before


def test_a_full_disk_fails_the_scan_and_leaves_nothing_torn(
    run_dir: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_save, first = nib.save, [True]

    def save(volume: nib.Nifti1Image, path: Path) -> None:
        if first and first.pop():
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_save(volume, path)

    monkeypatch.setattr(nib, "save", save)
    assert predict(run_dir, [scans / "a.nii.gz", scans / "b.nii.gz"], tmp_path / "out", device="cpu") == 1
    rows = {row["case"]: row for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]}
    assert "No space left" in rows["a"]["reason"]
    assert rows["b"]["status"] == "ok"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_seg.nii.gz", *BOOKS}


def test_wrong_channels_and_bad_voxels_fail_with_their_reason(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    volume = nib.load(scans / "a.nii.gz")
    array = np.asarray(volume.dataobj).copy()
    nib.save(nib.Nifti1Image(np.stack([array, array], -1), volume.affine), tmp_path / "two.nii.gz")
    array[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(array, volume.affine), tmp_path / "nan.nii.gz")
    items = [{"case": name, "image": str(tmp_path / f"{name}.nii.gz")} for name in ("two", "nan")]
    reasons = [found.reason for found in Segmenter(run_dir, device="cpu")(items)]
    assert reasons[0].endswith("2 channels and the network takes 1 (noise); give a file with this one, no others")
    assert "NaN or infinite" in reasons[1]
    assert "export the scan anew" in reasons[1]
    # Also where a normalisation knows of another number first.
    nyul = "{_target_: rarevox.transforms.NyulNormalised, keys: image, region: image, landmarks: [[0, 1]], "
    three = Segmenter(run_dir, device="cpu", settings=[f"normalisation={nyul} percentiles: [10, 90]}}"])
    assert "2 channels and the network takes 1 (noise)" in next(three(items[:1])).reason


def test_wrong_requests(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run"):
        predict(tmp_path, [scans], tmp_path / "out")
    with pytest.raises(RequestError, match="does not exist"):
        predict(run_dir, [tmp_path / "nothing"], tmp_path / "out")
    with pytest.raises(RequestError, match="already holds other files"):
        predict(run_dir, [scans], scans)
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    state = torch.load(other / "models" / "model.pt", weights_only=True)
    state["stem.conv.weight"] = torch.zeros(7, 1, 3, 3, 3)
    torch.save(state, other / "models" / "model.pt")
    with pytest.raises(RequestError, match=r"layer 'stem.conv.weight' is \(7, 1, 3, 3, 3\) in the file"):
        predict(other, [scans], tmp_path / "out")
    (other / "models" / "model.pt").write_bytes(b"torn")
    with pytest.raises(RequestError, match="not a readable checkpoint"):
        predict(other, [scans], tmp_path / "out")


@pytest.mark.parametrize("chained", [False, True])
def test_a_run_that_normalises_in_a_mask_asks_for_masks(
    chained: bool, run_dir: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    config = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    config["normalisation"]["region"] = "mask"
    if chained:
        config["normalisation"] = {"_target_": "Compose", "transforms": [config["normalisation"]]}
    (run / "configs" / "inference.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(RequestError, match="normalises inside a mask"):
        predict(run, [scans], tmp_path / "out", device="cpu")
    masks = tmp_path / "masks"
    masks.mkdir()
    volume = nib.load(scans / "a.nii.gz")
    whole = np.ones(volume.shape, np.uint8)
    nib.save(nib.Nifti1Image(whole, volume.affine), masks / "a_mask.nii.gz")
    assert predict(run, [scans / "a.nii.gz", scans / "b.nii.gz"], tmp_path / "out", device="cpu", masks=masks) == 1
    rows = {row["case"]: row for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]}
    assert rows["a"]["status"] == "ok"
    assert "inside a mask" in rows["b"]["reason"]
    assert "--masks changes nothing" not in capsys.readouterr().err
    assert predict(run_dir, [scans / "a.nii.gz"], tmp_path / "plain", device="cpu", masks=masks) == 0
    assert "--masks changes nothing" in capsys.readouterr().err
    plain = Segmenter(run_dir, device="cpu")([{"case": "a", "image": str(scans / "a.nii.gz")}])
    expected = next(iter(plain)).labels
    assert expected is not None  # a mask that holds the whole scan changes nothing
    assert np.array_equal(nib.load(tmp_path / "out" / "a_seg.nii.gz").dataobj, expected)


def test_a_scan_that_fails_leaves_no_map_of_an_earlier_call(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    scan, out = tmp_path / "x.nii.gz", tmp_path / "out"
    shutil.copy(scans / "a.nii.gz", scan)
    assert predict(run_dir, [scan], out, device="cpu", entropy=True, probabilities="uint8") == 0
    assert len(list(out.glob("*.nii.gz"))) == 4
    scan.write_bytes(b"torn")
    assert predict(run_dir, [scan], out, device="cpu") == 1
    assert {path.name for path in out.iterdir()} == BOOKS


def test_what_a_killed_call_left_is_removed(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / "out" / f".{ended.pid}.part.abc"
    left.mkdir(parents=True)
    (left / "0.raw").write_bytes(b"half")
    assert predict(run_dir, [scans / "a.nii.gz"], tmp_path / "out", device="cpu", probabilities="uint8") == 0
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
