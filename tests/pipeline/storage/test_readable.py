"""Cases that cannot be read are left out, named, and stop none of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CastToTyped, Compose

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.storage.cases import training_cases
from rarevox.pipeline.storage.readable import WholeCases, require_sound
from rarevox.transforms import IndexForegroundd
from rarevox.transforms.reader import ScanError

BAD = ("1", "3")


def whole(case: dict[str, Any]) -> dict[str, Any]:
    if case["case"] in BAD:
        raise RuntimeError("applying transform") from ScanError(f"scan {case['case']} is truncated")
    label = torch.zeros(1, 6, 6, 6, dtype=torch.uint8)
    label[0, 2, 2, 2] = 1
    return {"image": torch.full((1, 6, 6, 6), float(case["case"])), "label": label, "case": case["case"]}


@pytest.mark.parametrize("cache", ["memory", "disk", "auto", "device"])
def test_training_goes_on_with_the_others(cache: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [{"case": str(number), "image": str(tmp_path / f"{number}.nii")} for number in range(5)]
    for number, case in enumerate(data):
        Path(case["image"]).write_text(f"content {number}")
    cases = training_cases(data, whole, IndexForegroundd("label"), cache=cache, folder=tmp_path)
    assert [case["case"] for case in cases] == ["0", "2", "4"]
    assert [float(case["image"].mean()) for case in cases] == [0.0, 2.0, 4.0]
    said = capsys.readouterr().err
    assert [f"left out {number}: scan {number} is truncated" in said for number in "01234"] == [False, True] * 2 + [
        False
    ]


def test_validation_goes_on_with_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    for rate in (1.0, 0.5, 0.0):
        cases = WholeCases([{"case": str(number)} for number in range(5)], whole, cache_rate=rate)
        assert [cases[number]["case"] for number in range(len(cases))] == ["0", "2", "4"]
        assert [one["case"] for one in cases.data] == ["0", "2", "4"]
    assert capsys.readouterr().err.count("left out 3: scan 3 is truncated") == 3


def test_nothing_that_can_be_read_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [{"case": case, "image": __file__} for case in BAD]
    with pytest.raises(RequestError, match="none of the 2 training cases can be read; scan 1 is truncated"):
        training_cases(data, whole, IndexForegroundd("label"), cache="memory", folder=tmp_path)
    assert len(WholeCases(data, whole)) == 0
    assert "no validation: none of the 2 validation cases can be read" in capsys.readouterr().err


def test_what_the_configuration_says_wrongly_is_told_as_its_own(tmp_path: Path) -> None:
    preprocessing = Compose([CastToTyped("image", dtype=3), CastToTyped("label", dtype=torch.uint8)])
    data = [{"case": "a", "image": torch.zeros(1, 2, 2, 2), "label": torch.zeros(1, 2, 2, 2)}]
    with pytest.raises(
        RequestError, match=r"can be read; .* \(CastToTyped: TypeError\); correct the entry of the conf"
    ):
        training_cases(data, preprocessing, IndexForegroundd("label"), cache="memory", folder=tmp_path)


def test_lack_of_memory_is_no_fault_of_a_case(tmp_path: Path) -> None:
    def short(case: dict[str, Any]) -> dict[str, Any]:
        raise MemoryError

    with pytest.raises(MemoryError):
        training_cases([{"case": "a"}], short, IndexForegroundd("label"), cache="memory", folder=tmp_path)


def moved(size: int = 4, by: float = 0.0) -> MetaTensor:
    affine = torch.eye(4, dtype=torch.float64)
    affine[0, 3] = by
    return MetaTensor(torch.zeros(1, size, 4, 4), affine)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ({"image": torch.zeros(2, 4, 4, 4)}, "the scan has 2 channel"),
        ({"image": torch.full((1, 4, 4, 4), float("nan"))}, "NaN or infinite"),
        ({"image": moved(), "label": moved(5)}, "the label map is 5×4×4 voxels and the scan 4×4×4"),
        ({"image": moved(), "label": moved(by=1.0)}, "label map and scan are on different grids"),
        ({"image": moved(), "label": moved(), "mask": moved(3)}, "the mask is 3×4×4"),
    ],
)
def test_a_case_that_would_spoil_a_batch_is_refused(case: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        require_sound(case, channels=1)


def test_a_sound_case_passes() -> None:
    require_sound({"image": moved(), "label": moved(by=1e-3), "mask": torch.ones(1, 4, 4, 4)}, channels=1)
