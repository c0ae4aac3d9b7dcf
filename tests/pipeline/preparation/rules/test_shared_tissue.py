"""A cohort whose T1 shows the head and whose FLAIR is stripped: warned of, planned for, told at prediction."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.data import MetaTensor

from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.training.fit import fit_to_data
from rarevox.transforms import ZScored
from rarevox.transforms.told import WARNINGS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects, 16³ voxels: a brain of 8³ in the FLAIR, a head of 10 × 9 × 8 around it in the T1."""
    root = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    for subject in range(4):
        flair, t1 = np.zeros((2, 16, 16, 16), np.float32)
        flair[4:12, 4:12, 4:12] = random.normal(100, 10, (8, 8, 8))
        t1[3:13, 3:12, 4:12] = random.normal(300, 30, (10, 9, 8))
        label = np.zeros((16, 16, 16), np.uint8)
        label[5 + subject, 6:8, 6] = 1
        place = root / "scans" / f"s{subject}"
        place.mkdir(parents=True)
        for name, array in (("FLAIR", flair), ("T1", t1), ("lesion", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), place / f"{name}.nii.gz")
    channels = {"FLAIR": "FLAIR.nii.gz", "T1": "T1.nii.gz"}
    made: dict[str, object] = {"structures": {"lesion": 1}, "folds": 2, "holdout": 0.0, "workers": 1}
    assert prepare(root / "scans", root / "data", channels=channels, label="lesion.nii.gz", **made) == 0  # type: ignore[arg-type]
    return root / "data"


def test_it_is_warned_of_and_planned(folder: Path) -> None:
    """512 of the 720 voxels of tissue are in both."""
    page = (folder / "checks.html").read_text(encoding="utf-8")
    assert "channel-tissue" in page and "29 % of the tissue in its channels is 0 in one of them" in page
    plan = (folder / "plan.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(plan)["normalisation"]["region"] == "common"
    assert "(up to 29 % of a case's)" in plan.replace("\n# ", " ")


def test_a_run_whose_scans_may_lack_channels_takes_each_by_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.load(folder)

    def region(*settings: str) -> str:
        return str(fit_to_data(compose("train", dataset=data, settings=settings), data)["normalisation"]["region"])

    assert region() == "common"
    assert "each channel is normalised over its own tissue" not in capsys.readouterr().err
    assert region("channel_dropout=0.25") == "nonzero"
    assert "each channel is normalised over its own tissue" in capsys.readouterr().err
    with pytest.raises(RequestError, match="add --set normalisation#region=nonzero"):
        region("channel_dropout=0.25", "normalisation#region=common")
    assert region("channel_dropout=0.25", "normalisation#region=nonzero") == "nonzero"
    step = "{_target_: rarevox.transforms.ZScored, keys: image, region: common}"
    with pytest.raises(RequestError, match="showed; let each step have region: nonzero"):
        region("channel_dropout=0.25", f"normalisation={{_target_: Compose, transforms: [{step}]}}")


@pytest.mark.parametrize(("rows", "told"), [(7, False), (6, True)])
def test_a_scan_that_is_cut_by_much_is_told(rows: int, told: bool) -> None:
    """Of eight rows of tissue seven are shared, an eighth less, or six."""
    image = MetaTensor(1 + torch.rand(2, 10, 4, 4, generator=torch.Generator().manual_seed(0)))
    image[:, [0, 9]] = 0
    image[0, 1 + rows :] = 0
    warned = str(ZScored("image", "common")({"image": image})["image"].meta.get(WARNINGS, ""))
    assert ("25 % of the tissue in its channels is 0 in one of them and was left out" in warned) == told
    assert WARNINGS not in ZScored("image", "nonzero")({"image": image})["image"].meta
