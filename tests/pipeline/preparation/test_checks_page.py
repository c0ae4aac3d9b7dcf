"""The page of the checks: one file that asks for nothing, with every case, its picture and what was found."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from rarevox.pipeline.preparation import checks_page
from rarevox.pipeline.preparation.cases import Case
from rarevox.pipeline.preparation.checks.case import load_case
from rarevox.pipeline.preparation.checks.thumbnail import COLOURS, HEIGHT, thumbnail
from rarevox.pipeline.preparation.prepare import prepare
from tests.pipeline.preparation.test_prepare import decathlon, plant


def pictures(html: str) -> dict[str, bytes]:
    found = re.findall(r'data-name="([^"]+)".*?(?:src="data:image/jpeg;base64,([^"]+)"|no picture)', html, re.DOTALL)
    return {name: base64.b64decode(data) for name, data in found}


def test_every_case_is_on_the_page_with_its_faults_and_picture(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task")
    planted = plant(task)
    prepare(task, tmp_path / "out", skip_faulty=True)
    html = (tmp_path / "out" / "checks.html").read_text(encoding="utf-8")
    cards = dict(re.findall(r'data-name="([^"]+)"(.*?)</li>\n(?=<li|</ol)', html, re.DOTALL))
    assert set(cards) == {f"c{number:02}" for number in range(12)}
    for case, check in planted.items():
        assert f'<b class="error">{check}</b>' in cards[case]
    assert "<b class" not in cards["c00"]
    drawn = {name for name, data in pictures(html).items() if data}
    assert drawn == set(cards) - {"c02", "c03"}  # those two cannot be read
    assert str(tmp_path) not in html  # file names are relative to the source


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    prepare(decathlon(tmp_path / "task", 3), tmp_path / "out")
    html = (tmp_path / "out" / "checks.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"|url\(|https?://', html)
    assert "None: all" in html


def test_a_name_is_text_and_never_markup(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 3)
    content = (task / "dataset.json").read_text(encoding="utf-8").replace("Phantom", "<script>alert(1)</script>")
    (task / "dataset.json").write_text(content)
    prepare(task, tmp_path / "out")
    assert "<script>alert" not in (tmp_path / "out" / "checks.html").read_text(encoding="utf-8")


def test_a_full_page_draws_the_faulty_cases_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = decathlon(tmp_path / "task", 6)
    label = task / "labelsTr" / "c04.nii.gz"
    volume = nib.load(label)
    nib.save(nib.Nifti1Image(np.zeros(volume.shape, np.uint8), volume.affine), label)
    prepare(task, tmp_path / "a")
    size = len(pictures((tmp_path / "a" / "checks.html").read_text(encoding="utf-8"))["c04"])
    monkeypatch.setattr(checks_page, "PICTURES_BYTES", size)
    prepare(task, tmp_path / "b")
    html = (tmp_path / "b" / "checks.html").read_text(encoding="utf-8")
    assert {name for name, data in pictures(html).items() if data} == {"c04"}
    assert "5 further cases have no picture" in html


class TestThumbnail:
    """A volume of 20 × 10 × 5 voxels of 1 × 2 × 4 mm is a cube of 20 mm: three square planes."""

    @pytest.fixture
    def picture(self, tmp_path: Path) -> np.ndarray:
        image = np.random.default_rng(0).normal(100, 5, (20, 10, 5)).astype(np.float32)
        label = np.zeros((20, 10, 5), np.uint8)
        label[:10, :5, :2] = 3  # left, posterior, inferior
        for name, array in (("i", image), ("l", label)):
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 4.0, 1.0])), tmp_path / f"{name}.nii.gz")
        loaded, faults = load_case(Case("c", (tmp_path / "i.nii.gz",), tmp_path / "l.nii.gz"))
        assert loaded is not None, faults
        return np.asarray(Image.open(io.BytesIO(thumbnail(loaded))).convert("RGB")).astype(int)

    @pytest.mark.parametrize("shape", [(1, 1, 1), (5, 4, 1), (2, 3, 300)])
    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e30])
    def test_any_volume_has_a_picture(self, tmp_path: Path, shape: tuple[int, ...], value: float) -> None:
        nib.save(nib.Nifti1Image(np.full(shape, value, np.float32), np.eye(4)), tmp_path / "i.nii.gz")
        nib.save(nib.Nifti1Image(np.full(shape, np.nan, np.float32), np.eye(4)), tmp_path / "l.nii.gz")
        loaded, faults = load_case(Case("c", (tmp_path / "i.nii.gz",), tmp_path / "l.nii.gz"))
        assert loaded is not None, faults
        assert Image.open(io.BytesIO(thumbnail(loaded))).height <= HEIGHT

    def test_true_proportions(self, picture: np.ndarray) -> None:
        assert picture.shape == (HEIGHT, 3 * (HEIGHT + 4), 3)

    def test_outlines_lie_where_the_label_is(self, picture: np.ndarray) -> None:
        coloured = np.abs(picture - np.array(COLOURS[0])).sum(-1) < 90
        half = HEIGHT // 2
        axial = coloured[:, 2 : 2 + HEIGHT]  # the patient's left is on the right, posterior is below
        assert axial[half:, half - 1 :].any()
        assert not axial[: half - 2].any()
        assert not axial[:, : half - 2].any()
