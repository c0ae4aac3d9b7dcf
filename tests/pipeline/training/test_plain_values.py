from __future__ import annotations

from pathlib import Path

import pytest

from rarevox.pipeline.compose import CONFIGS, compose, read_yaml
from rarevox.pipeline.entries import merge
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.plain_values import check_values
from rarevox.pipeline.training.train import train
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
        ("validation_cases", -1),
        ("fold", "a"),
        ("seed", 1.5),
        ("loss_margin", [1, 2]),
        ("loss_margin", -1),
        ("batch_augmentation", 3),
        ("batch_augmentation", {"prob": 0.5}),
        ("augmentation", None),
        ("network_def", "highresnet"),
        ("geometry", 3),
        ("composites", 3),
        ("handlers", None),
        ("train", []),
        ("slice_axis", []),
        ("iterations", "many"),
        ("minutes", [1]),
        ("validations", None),
        ("temperature", 0),
        ("temperature", None),
        ("n4", "word"),
        ("cache_rate", 2),
        ("patience", 1.5),
        ("ema_decay", "high"),
        ("mlflow", 3),
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
        ("validation_cases", 0),
        ("batch_size", "$2 * 2"),
        ("seed", "@mine"),
        ("mine", "anything"),
        ("batch_augmentation", None),
        ("loss", {"_target_": "rarevox.losses.DiceLoss"}),
        ("geometry", "@mine"),
        ("inferer", "$@mine[0]"),
        ("iterations", None),
    ],
)
def test_what_may_be_passes(key: str, value: object) -> None:
    check_values({key: value})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("handlers#2=true", "handlers#2 is True"),
        ("checkpoint#parts#budget=[]", r"checkpoint#parts#budget is \[\]"),
        ("log#trackers=[a, b]", "log#trackers#0 is 'a'"),
        ("validate#dataloader=abc", "validate#dataloader is 'abc'"),
        ("train#patch=3", "train#patch is 3"),
    ],
)
def test_what_is_built_within_an_entry_stays_so(setting: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_values(compose("train", settings=[setting]).config)


@pytest.mark.parametrize("setting", ["checkpoint#parts#budget=null", "train#trainer#device=cpu", "log#trackers=[]"])
def test_none_of_it_and_a_text_that_an_annotation_takes_pass(setting: str) -> None:
    check_values(compose("train", settings=[setting]).config)


@pytest.mark.parametrize(
    "key", ["fold", "patch_size", "loss_margin", "spacing", "slice_axis", "mirror_axes", "minutes"]
)
def test_what_is_needed_before_anything_is_resolved_must_be_written_out(key: str) -> None:
    with pytest.raises(RequestError, match=f"^{key} is '@mine'; expected .*, written out"):
        check_values({key: "@mine"})


def test_the_packaged_configurations_are_of_their_kinds() -> None:
    """Every overlay, over the defaults."""
    base = read_yaml(CONFIGS / "common.yaml") | read_yaml(CONFIGS / "train.yaml")
    check_values(base)
    for kind in ("networks", "losses", "tasks"):
        for path in sorted((CONFIGS / kind).glob("*.yaml")):
            config = {**base}
            merge(config, read_yaml(path), str(path))
            check_values(config)


WRONG = [3, "word", None, [1], {"a": 1}, True, -1]


@pytest.mark.parametrize("key", sorted(read_yaml(CONFIGS / "common.yaml") | read_yaml(CONFIGS / "train.yaml")))
def test_no_key_takes_a_value_of_any_kind(key: str) -> None:
    """Of seven values of all kinds each key refuses some; those that others read and check are left out."""
    if key in ("bundle_root", "resume", "device", "precision", "in_channels", "out_channels", *READ_BY_OTHERS):
        return
    refused = 0
    for value in WRONG:
        try:
            check_values({key: value})
        except RequestError:
            refused += 1
    assert refused


READ_BY_OTHERS = {
    "dataset_dir": "filled in from the dataset",
    "cache": "rarevox.pipeline.storage.cases.check_cache",
    "cache_type": "rarevox.pipeline.storage.cases.check_cache",
    "gates": "rarevox.pipeline.gates.read_gates",
    "post_processing": "rarevox.transforms.clean.read_rules",
}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_augmentation=3", "batch_augmentation is 3; expected an entry with _target_"),
        ("augmentation=3", "augmentation is 3; expected an entry with _target_"),
        (
            "train#dataset#batch_transform={_target_: builtins.int}",
            "the first step failed: TypeError: 'int' object is not callable; correct the entry",
        ),
        (
            "validate#inferer={_target_: builtins.int}",
            "the validation at step 1 failed: TypeError: 'int' object is not",
        ),
        ("validate#inferer=3", "validate#inferer is 3; "),
        ("preprocessing#transforms=3", "preprocessing#transforms is 3; Compose takes a list"),
        (
            "preprocessing#transforms#3={_target_: builtins.int}",
            r"none of the 4 training cases can be read; 'int' object is not callable \(.*TypeError\); correct",
        ),
        ("augmentation#transforms#0#prob=word", "augmentation#transforms#0#prob is 'word'; RandFlipd takes a number"),
        ("optimizer#lr=word", "optimizer#lr is 'word'; Muon takes a number for lr"),
        ("spacing=1", "spacing is 1; expected millimetres"),
        ("patience=0", "patience is 0; expected a number of validations"),
        ("ema_decay=2", "ema_decay is 2; expected 0 to below 1"),
        ("normalisation#region=foo", "'normalisation' cannot be built: region is 'foo'; expected one of image"),
        ("sampler#_target_=transforms.Foo", "cannot be built: Cannot locate class or function path: 'transforms.Foo'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(dataset_dir: Path, tmp_path: Path, setting: str, message: str) -> None:
    """Also where it shows only when the training is built."""
    with pytest.raises(RequestError, match=message):
        train(dataset_dir, tmp_path / "run", settings=[*SMALL, setting], iterations=1, device="cpu")
