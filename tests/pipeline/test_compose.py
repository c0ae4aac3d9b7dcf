from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import CONFIGS, compose, derive, merge, parse_setting, put, read_yaml, write_yaml
from rarevox.pipeline.errors import RequestError

NETWORKS = sorted(path.stem for path in (CONFIGS / "networks").glob("*.yaml"))
LOSSES = sorted(path.stem for path in (CONFIGS / "losses").glob("*.yaml"))
TASKS = sorted(path.stem for path in (CONFIGS / "tasks").glob("*.yaml"))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_overlay_builds_and_its_patch_fits(name: str) -> None:
    config = compose("train", network=name, settings=["channels=[a, b]", "label_values=[0, 1, 2]"])
    geometry = build(config, "geometry")
    assert geometry.accepts(config["patch_size"])
    margins = geometry.loss_margins(config["loss_margin"])
    assert all(n > 2 * m for n, m in zip(geometry.output_size(config["patch_size"]), margins, strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_overlay_builds(name: str) -> None:
    assert callable(build(compose("train", loss=name), "loss"))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_overlay_merges(name: str) -> None:
    assert build(compose("train", config_files=[name]), "geometry").accepts(
        compose("train", config_files=[name])["patch_size"]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer#lr=1e-4", ("optimizer#lr", 1e-4)),
        ("optimizer::lr=3", ("optimizer#lr", 3)),
        ("minutes=null", ("minutes", None)),
        ("a=b=c", ("a", "b=c")),
        ("patch_size=[1, 2]", ("patch_size", [1, 2])),
        ("name='1e-4'", ("name", 1e-4)),
    ],
)
def test_settings(text: str, expected: tuple[str, object]) -> None:
    assert parse_setting(text) == expected


def test_arguments_of_a_component_may_be_added_and_misspelt_ones_are_named() -> None:
    config = compose("train")
    put(config, "network_def#dropout", 0.5)
    assert config["network_def"]["dropout"] == 0.5
    put(config, "augmentation#transforms#0#prob", 0.0)
    assert config["augmentation"]["transforms"][0]["prob"] == 0.0
    with pytest.raises(RequestError, match="did you mean 'dropout'"):
        put(config, "network_def#dropuot", 0.5)
    with pytest.raises(RequestError, match="entries 0 to 5"):
        put(config, "augmentation#transforms#9#prob", 0.0)
    with pytest.raises(RequestError, match="single value"):
        put(config, "seed#deep", 0)


def test_an_overlay_may_add_only_keys_that_something_refers_to() -> None:
    config = compose("train")
    merge(config, {"my_rate": 0.1, "optimizer#lr": "@my_rate"}, "mine.yaml")
    assert config["optimizer"]["lr"] == "@my_rate"
    with pytest.raises(RequestError, match="mine.yaml: no configuration key 'bach_size': did you mean 'batch_size'"):
        merge(config, {"bach_size": 3}, "mine.yaml")


def test_later_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("batch_size: 7\nseed: 1\n")
    second.write_text("batch_size: 8\n")
    config = compose("train", network="deepmedic", config_files=[first, second], settings=["seed=3"])
    assert (config["batch_size"], config["seed"]) == (8, 3)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RequestError, match="not valid YAML"):
        read_yaml(tmp_path / "bad.yaml")
    (tmp_path / "none.yaml").write_text("# patch_size: [40, 40, 40]\n")
    assert read_yaml(tmp_path / "none.yaml") == {}
    with pytest.raises(RequestError, match="must be a mapping"):
        read_yaml(tmp_path / "list.yaml")


def test_derived_stages_share_what_training_set() -> None:
    trained = compose("train", network="deepmedic", settings=["spacing=[1,1,2]", "inferer#flips=[0]"])
    for stage in ("inference", "evaluate"):
        config = derive(stage, trained)
        assert config["network_def"]["_target_"] == "rarevox.networks.DeepMedic"
        assert config["spacing"] == [1, 1, 2]
        assert config["inferer"]["flips"] == [0]
        assert "augmentation" not in config


def test_a_folder_of_an_overlay_s_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert compose("train", config_files=["demo"])["crop_to_content"] is True
    with pytest.raises(RequestError, match="no task is called 'dmeo': did you mean 'demo'"):
        compose("train", config_files=["dmeo"])


def test_configurations_are_ascii_since_monai_reads_them_in_the_platform_s_encoding() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert path.read_bytes().isascii(), path
    assert write_yaml({"structures": ["lésion"]}).isascii()
    assert yaml.safe_load(write_yaml({"structures": ["lésion"]})) == {"structures": ["lésion"]}
