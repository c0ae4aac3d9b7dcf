"""A BIDS derivative dataset: valid by BIDS' own validator, with the source's entities."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.pipeline.cohort.rows import files_of
from rarevox.pipeline.inference.outputs.bids import BidsMaps, roots_of
from rarevox.pipeline.inference.outputs.output import names_of, watches_of, write_all
from tests.pipeline.inference.outputs.test_clinic import STRUCTURES, result_of

SHAPE = (6, 5, 4)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two images of one session, and a scan that is not named by BIDS; labels and probabilities of each."""
    images = [
        tmp_path / "raw" / "sub-01" / "ses-b" / "anat" / f"sub-01_ses-b_run-1_{suffix}.nii.gz"
        for suffix in ("T1w", "FLAIR")
    ]
    images.append(tmp_path / "else" / "scan_7.nii.gz")
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        volume = nib.Nifti1Image(np.random.default_rng(0).random(SHAPE, np.float32), np.diag([1, 1, 2, 1]))
        volume.header.set_xyzt_units("mm")
        nib.save(volume, image)
    items = [{"case": image.name.split(".")[0], "image": str(image)} for image in images]
    output = BidsMaps(list(STRUCTURES), list(STRUCTURES.values()), roots_of(items), "uint8")
    folder = tmp_path / "out"
    folder.mkdir()
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2, 2], labels[4, 4, 3] = 1, 4
    rows = []
    for item, image in zip(items, images, strict=True):
        result = result_of(image, labels, item["case"])
        result.found.watch = watches = watches_of([output], item, folder)
        assert watches is not None
        watches.begin(SHAPE)
        watches.take(torch.full((3, *SHAPE), 1 / 3).log(), tuple(slice(0, n) for n in SHAPE))
        row = write_all([output], result, folder)
        assert set(files_of(row)) == set(names_of([output], item))
        rows.append({"case": item["case"], **row})
    (folder / "predictions.json").write_text(json.dumps({"scans": rows}))
    (folder / "lesions.csv").write_text("case\n")
    (folder / "a_seg.dcm").write_bytes(b"")
    (folder / "journal" / "claims").mkdir(parents=True)
    (folder / "journal" / "1.jsonl").write_text("{}\n")
    return folder


def test_names_have_the_sources_entities(written: Path) -> None:
    found = sorted(path.relative_to(written).as_posix() for path in written.rglob("*_dseg.nii.gz"))
    assert found[:2] == [
        f"sub-01/ses-b/anat/sub-01_ses-b_run-1_space-{suffix}_desc-rarevox_dseg.nii.gz" for suffix in ("FLAIR", "T1w")
    ]
    assert len(found) == 3
    assert found[2].startswith("sub-scan7x")
    assert len(list(written.rglob("*_label-lesion_desc-rarevox_probseg.nii.gz"))) == 3
    labels = nib.load(written / found[0])
    assert np.unique(labels.dataobj).tolist() == [0, 1, 4]
    told = json.loads((written / found[0].replace(".nii.gz", ".json")).read_text())
    assert told["Sources"] == ["bids:raw:sub-01/ses-b/anat/sub-01_ses-b_run-1_FLAIR.nii.gz"]
    assert told["VolumesMl"] == {"lesion": 0.004, "hippocampus": 0.002}
    assert (written / "dseg.tsv").read_text() == "index\tname\n1\tlesion\n4\thippocampus\n"
    shares = np.asarray(nib.load(next(written.rglob("*_probseg.nii.gz"))).dataobj)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.5 / 255)


@pytest.mark.skipif(shutil.which("bids-validator-deno") is None, reason="needs bids-validator-deno")
def test_the_validator_finds_no_error(written: Path) -> None:
    """It brings its schema along and asks no network."""
    done = subprocess.run(
        ["bids-validator-deno", written, "--json"], capture_output=True, text=True, check=False, timeout=120
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"the validator does not run here: {done.stderr[-200:]}")
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [one for one in issues if one["severity"] == "error"] == []
    assert len(json.loads(done.stdout)["summary"]["subjects"]) == 2


def test_the_validator_would_find_one(written: Path) -> None:
    """Held against a map of a wrong name, so that the test above can fail."""
    if shutil.which("bids-validator-deno") is None:
        pytest.skip("needs bids-validator-deno")
    shutil.copy(next(written.rglob("*_dseg.nii.gz")), written / "sub-01" / "ses-b" / "anat" / "sub-01_wrong.nii.gz")
    done = subprocess.run(
        ["bids-validator-deno", written, "--json"], capture_output=True, text=True, check=False, timeout=120
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"the validator does not run here: {done.stderr[-200:]}")
    assert [one for one in json.loads(done.stdout)["issues"]["issues"] if one["severity"] == "error"]


def test_labels_alone_and_a_second_scan_change_no_dataset_file(written: Path, tmp_path: Path) -> None:
    before = {name: (written / name).stat().st_mtime_ns for name in ("dataset_description.json", "dseg.tsv")}
    image = tmp_path / "else" / "scan_7.nii.gz"
    item = {"case": "scan_7", "image": str(image)}
    plain = BidsMaps(list(STRUCTURES), list(STRUCTURES.values()), [str(tmp_path / "raw")])
    assert names_of([plain], {"case": "scan_7"}) == []
    row = write_all([plain], result_of(image, np.zeros(SHAPE, np.uint8), "scan_7"), written)
    assert "probabilities" not in row
    assert watches_of([plain], item, written) is None
    assert {name: (written / name).stat().st_mtime_ns for name in before} == before
