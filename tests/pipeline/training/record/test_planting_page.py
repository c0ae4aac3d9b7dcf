from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rarevox.pipeline.files import write_json
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.pipeline.training.draws.planted_counts import PlantedCounts
from rarevox.pipeline.training.record.planting_page import PlantingPage, pair
from rarevox.transforms import (
    BackgroundMixSampler,
    IndexForegroundd,
    LesionLibrary,
    RandForegroundPatchd,
    RandPlantLesionsd,
)
from tests.transforms.planting.scans import scan


def page(folder: Path, prob: float) -> PlantingPage:
    cases = [{**scan(number), "case": f"case <{number}>"} for number in range(2)]
    draws = PatchDataset(
        [IndexForegroundd()(case) for case in cases], patch=RandForegroundPatchd(["image", "label"], (20, 20, 20))
    )
    planting = RandPlantLesionsd("image", LesionLibrary(cases), prob=prob)
    return PlantingPage(planting, draws, folder, ["FLAIR", "T1"], count=3)


def test_the_page_shows_patches_of_every_channel_and_escapes_names(tmp_path: Path) -> None:
    page(tmp_path, 0.3).write()
    text = (tmp_path / "planting.html").read_text()
    assert text.count("data:image/png;base64,") == 6
    assert "case &lt;" in text and "case <0>" not in text
    assert "6 lesions of 2 training cases" in text and "30 % of the patches" in text
    assert "Planted in all" not in text


def test_when_the_run_ends_it_says_what_was_planted(tmp_path: Path) -> None:
    from ignite.engine import Engine, Events

    one, engine = page(tmp_path, 0.5), Engine(lambda *_: None)
    one.attach(engine)
    engine.fire_event(Events.STARTED)
    counted = PlantedCounts(["<lesion>"], 2, [{"case": "case <0>"}, {"case": "b"}])
    counted.take(torch.tensor([[[0, 12], [-2, 40]]]))
    write_json(tmp_path / "patches.json", {"planted": counted.summary()})
    engine.fire_event(Events.COMPLETED)
    text = (tmp_path / "planting.html").read_text()
    assert "2 lesions of 52 voxels in 1 patch, 1 of them shapes of lesion maps" in text
    headings = ["By structure", "By size", "By the case that they are copied from"]
    assert re.findall(r"<h3>([^<]*)</h3>", text) == headings
    assert "&lt;lesion&gt;" in text and "<lesion>" not in text and "case <0>" not in text
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>(\d+)</td>(?:<td>(\d+)</td>)?</tr>', text)
    assert (
        ("10 to 29", "1", "") in rows and ("case &lt;0&gt;", "1", "") in rows and ("&lt;lesion&gt;", "2", "52") in rows
    )


def test_patches_that_are_never_planted_are_not_shown_planted(tmp_path: Path) -> None:
    """Every patch of these draws is without foreground, and lesions go into the others."""
    one = page(tmp_path, 1.0)
    sampler = BackgroundMixSampler(share=1.0)
    index = IndexForegroundd(sampler=sampler, patch_size=(8, 8, 8))
    cut = RandForegroundPatchd(["image", "label"], (8, 8, 8), sampler=sampler)
    one.dataset = PatchDataset([index(scan(0))], patch=cut)
    one.planting.into = "foreground"
    one.write()
    text = (tmp_path / "planting.html").read_text()
    assert "In none of the first 60 draws" in text and "100 % of the patches drawn for foreground" in text


def test_it_says_where_shapes_find_no_contrast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ignite.engine import Engine, Events

    one, engine = page(tmp_path, 0.5), Engine(lambda *_: None)
    one.planting.library = LesionLibrary([scan(0)], maps=tmp_path / "maps", map_class=4)
    one.attach(engine)
    engine.fire_event(Events.STARTED)
    assert "no shape of" in capsys.readouterr().err


def test_a_picture_shows_what_changed() -> None:
    """3×3 pixels a voxel, a column of black on every side; the planted voxel lies in the second picture alone."""
    from PIL import Image

    before, known, planted = np.zeros((6, 5, 4)), np.zeros((6, 5, 4), bool), np.zeros((6, 5, 4), bool)
    before[1:5, 1:4] = np.random.default_rng(0).random((4, 3, 4)) + 1
    planted[2, 2, 1] = True
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(pair(before, before, known, planted, 1)))))
    assert picture.shape == (15, 40, 3)
    coloured = (picture[..., 0] != picture[..., 2]).any(0)
    assert not coloured[:20].any() and coloured[20:].any()


def test_without_lesions_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ignite.engine import Engine, Events

    one, engine = page(tmp_path, 0.5), Engine(lambda *_: None)
    one.planting.library = LesionLibrary([scan(0, lesions=0)])
    one.attach(engine)
    engine.fire_event(Events.STARTED)
    assert "nothing is planted" in capsys.readouterr().err
    assert not (tmp_path / "planting.html").exists()


@pytest.mark.parametrize(("prob", "written"), [(0.0, False), (0.5, True)])
def test_nothing_is_written_without_planting(tmp_path: Path, prob: float, written: bool) -> None:
    from ignite.engine import Engine, Events

    engine = Engine(lambda *_: None)
    page(tmp_path, prob).attach(engine)
    engine.fire_event(Events.STARTED)
    assert (tmp_path / "planting.html").exists() == written
    if written:
        assert re.search(r"<td>\d+</td>", (tmp_path / "planting.html").read_text())
