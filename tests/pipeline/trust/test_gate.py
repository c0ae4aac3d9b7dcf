"""What a run's configuration may say, and what it may not; see also ``test_strange_runs.py``."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.compose import CONFIGS, compose, derive, write_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.trust.gate import Refusal, require_ours, require_plain, run_config

NAMES = {
    kind: sorted(file.stem for file in (CONFIGS / kind).glob("*.yaml")) for kind in ("networks", "losses", "tasks")
}
OURS: list[dict[str, Any]] = [
    *({"network": name} for name in NAMES["networks"]),
    *({"loss": name} for name in NAMES["losses"]),
    *({"loss": "dice_ce", "config_files": [name]} for name in NAMES["tasks"]),
    {"settings": ["network_def#width=4", "patch_size=[16,16,16]", "optimizer#lr=0.01", "inferer#flips=[0]"]},
    {"settings": ["sampler#_target_=rarevox.transforms.LesionBalancedSampler", "network_def#norm=group"]},
    {"settings": ["optimizer#_target_=torch.optim.SGD", "loss_schedule#shape=linear", "spacing=[1,1,1.5]"]},
    {"settings": ["normalisation={_target_: Compose, transforms: []}", "post_processing={structure: {min_ml: 1}}"]},
]


@pytest.mark.parametrize("options", OURS, ids=str)
def test_what_our_overlays_and_plain_settings_make_passes(options: dict[str, Any]) -> None:
    config = compose("train", **options).config
    for stage in ("train", "evaluate", "inference"):
        require_ours(config if stage == "train" else derive(stage, config), stage)


def inference() -> dict[str, Any]:
    return deepcopy(derive("inference", compose("train").config))


def put(key: str, value: object) -> Callable[[dict[Any, Any]], None]:
    """Set an entry, or append it to a list where the last step is ``+``."""

    def change(config: dict[Any, Any]) -> None:
        *path, last = key.split("#")
        place: Any = config
        for step in path:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if last == "+":
            place.append(value)
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "$__import__('os').system('true')"),
        ("seed", "$'a' and 1"),
        ("seed", "$'a@seed'"),
        ("seed", "$len(@channels)"),  # ours, but of another key
        ("seed", "@evaluator"),
        ("seed", "@::evaluator"),
        ("seed", "%seed"),
        ("seed", "%/etc/x.json#a"),
        ("imports", ["$import os"]),
        ("_meta_", {"name": "$import os"}),
        ("initialize", ["$print(1)"]),
        ("run", ["$print(1)"]),
        ("run#+", "$print(1)"),
        ("mine", {"_target_": "os.system", "command": "true"}),
        ("network_def#_target_", "os.system"),
        ("network_def#_target_", "rarevox.pipeline.training.RunLog"),  # ours, but of another key
        ("network_def#_target_", ["os", "system"]),
        ("network_def#_mode_", "debug"),
        ("network_def#_mode_", "callable"),
        ("network_def#_requires_", ["@evaluator"]),
        ("network_def#_debug_", True),
        ("network_def#act", "os.system"),
        ("network_def#act", "os..system"),
        ("preprocessing#transforms#+", {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}),
        ("preprocessing#transforms#+", {"_target_": "rarevox.pipeline.inference.SaveLabelsd", "output": "/tmp"}),
        ("preprocessing#transforms#0#reader", "os.system"),
        ("preprocessing#transforms#0#reader", "NumpyReader"),  # which unpickles
        ("preprocessing#transforms#0#reader", ["NumpyReader"]),
        ("preprocessing#transforms#0#reader", {"_target_": "NumpyReader"}),
        ("load_weights#path", "/elsewhere/model.pt"),
        ("load_weights#_target_", "torch.load"),
        ("dataloader#collate_fn", "x"),
        ("normalisation#region", "a.b"),
        ("preprocessing::transforms::0", 3),
        ("preprocessing::transforms::0#x", 3),
        ("structures", ["$x"]),
        ("structures", ["../../up"]),
        ("structures", [3]),
        ("channels", ["a\x1b[2J"]),
        ("composites", {"_target_": [1, 2]}),
        ("composites", {"a/b": [1, 2]}),
        ("regions", {"a/b": [1, 2]}),
        ("post_processing", {"_target_": "os.system", "command": "true"}),
        ("seed", b"bytes"),
    ],
    ids=str,
)
def test_more_than_data_is_refused_by_key_and_value(key: str, value: object) -> None:
    config = inference()
    if "::" in key:
        config[key.replace("#", "::")] = value
    else:
        put(key, value)(config)
    with pytest.raises(RequestError) as caught:
        require_ours(config, "RUN/configs/inference.yaml")
    assert "RUN/configs/inference.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_the_sentence_names_key_value_and_remedy() -> None:
    config = inference()
    put("preprocessing#transforms#+", {"_target_": "Lambdad", "keys": "image"})(config)
    with pytest.raises(Refusal, match=r"preprocessing#transforms#\d+#_target_ is 'Lambdad'.*--trust"):
        require_ours(config, "x")


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(Refusal, match="a key is a text"):
        require_ours(inference() | {3: 1}, "x")  # type: ignore[dict-item]


def test_the_loss_schedules_dotted_path_is_refused() -> None:
    """It names a function to call; it may stand in a file of one's own, and in a run with --trust."""
    config = compose("train", loss="dice_ce_linear", settings=["loss_schedule#shape=os.system"]).config
    with pytest.raises(Refusal, match=r"loss_schedule#shape is 'os\.system'"):
        require_ours(config, "x")


def test_plain_keys_of_ones_own_pass() -> None:
    require_ours(inference() | {"note": {"by": ["me", 1, None, 2.5, True]}}, "x")


@pytest.mark.parametrize(
    "plan",
    [
        {"spacing": None, "patch_size": [32, 32, 32], "mirror_axes": []},
        {"normalisation": {"_target_": "rarevox.transforms.CTWindowd", "keys": "image", "windows": [-160.0, 240.0]}},
        {"normalisation#region": "nonzero", "sampler#_target_": "rarevox.transforms.LesionBalancedSampler"},
        {"optimizer#lr": 0.1},
    ],
    ids=str,
)
def test_a_plan_of_values_passes(plan: dict[str, Any]) -> None:
    require_plain(plan, "plan.yaml")


@pytest.mark.parametrize(
    "plan",
    [
        {"batch_size": "$__import__('os').system('true')"},
        {"batch_size": "@seed"},
        {"batch_size": "%seed"},
        {"normalisation": {"_target_": "os.system", "command": "true"}},
        {"normalisation#_target_": "os.system"},
        {"normalisation::_target_": "os.system"},
        {"normalisation#_mode_": "debug"},
        {"loss_schedule#shape": "os.system"},
        {"out_channels": "$len(@label_values)"},
        {"x": {"_target_": "rarevox.transforms.ZScored"}},
        {3: 1},
    ],
    ids=str,
)
def test_a_plan_that_is_more_than_data_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match=r"plan\.yaml: .*--config"):
        require_plain(plan, "plan.yaml")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("channels", "image", "a list of names"),
        ("channels", [], "a list of names"),
        ("structures", {"a": 1}, "a list of names"),
        ("label_values", [0, "1"], "whole numbers"),
        ("label_values", [0, 1, 2], "one more than structures"),
        ("normalisation", None, "with _target_"),
        ("inferer", 3, "with _target_"),
        ("post_processing", [1], "rules"),
        ("composites", None, "a mapping"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_the_facts_of_a_run_have_their_form(tmp_path: Path, key: str, value: object, said: str, trust: bool) -> None:
    path = tmp_path / "configs" / "inference.yaml"
    path.parent.mkdir()
    path.write_text(write_yaml(inference() | {key: value}))
    with pytest.raises(RequestError, match=said):
        run_config(tmp_path, "inference", trust=trust)
    path.write_text(write_yaml({k: v for k, v in inference().items() if k != key}))
    with pytest.raises(RequestError, match=f"has no '{key}'"):
        run_config(tmp_path, "inference", trust=trust)


def test_trust_takes_what_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "configs" / "inference.yaml"
    path.parent.mkdir()
    path.write_text(write_yaml(inference() | {"seed": "$1 + 1"}))
    assert run_config(tmp_path, "inference", trust=True)["seed"] == "$1 + 1"
    with pytest.raises(Refusal, match="seed is '\\$1 \\+ 1'"):
        run_config(tmp_path, "inference")
