from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RequestError
from pipeline.training.plain_values import check_values
from pipeline.training.train import train
from tests.conftest import SMALL


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing", 1),
        ("spacing", [1, 1]),
        ("spacing", [1, 1, 0]),
        ("patch_size", 16),
        ("patch_size", "abc"),
        ("mirror_axes", 0),
        ("mirror_axes", [3]),
        ("mirror_axes", None),
        ("batch_size", 0),
        ("batch_size", "two"),
        ("batch_size", True),
        ("workers", -1),
        ("validation_cases", 0),
        ("fold", "a"),
        ("seed", 1.5),
        ("loss_margin", [1, 2]),
        ("loss_margin", -1),
    ],
)
def test_what_is_no_such_number_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{key} is .*; expected "):
        check_values({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing", [1, 1.5, 3]),
        ("patch_size", [63, 63]),
        ("mirror_axes", [0, 2]),
        ("mirror_axes", []),
        ("loss_margin", [18, 18, 0]),
        ("validation_cases", None),
        ("batch_size", "$2 * 2"),
        ("seed", "@fold"),
        ("mine", "anything"),
    ],
)
def test_what_may_be_passes(key: str, value: object) -> None:
    check_values({key: value})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("spacing=1", "spacing is 1; expected millimetres"),
        ("patience=0", "patience is 0; expected a number of validations"),
        ("ema_decay=2", "ema_decay is 2; expected 0 to below 1"),
        ("normalisation#region=foo", "'train#trainer' cannot be built: region is 'foo'; expected one of image"),
        ("sampler#_target_=transforms.Foo", "cannot be built: Cannot locate class or function path: 'transforms.Foo'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(dataset_dir: Path, tmp_path: Path, setting: str, message: str) -> None:
    """Also where it shows only when the training is built."""
    with pytest.raises(RequestError, match=message):
        train(dataset_dir, tmp_path / "run", settings=[*SMALL, setting], iterations=1, device="cpu")
