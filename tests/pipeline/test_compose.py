from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import CONFIGS, Source, compose, derive, overlay, packaged_once, read_yaml, write_yaml
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.entries import merge, parse_setting, put
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.fit import fit_to_data

NETWORKS = sorted(path.stem for path in (CONFIGS / "networks").glob("*.yaml"))
LOSSES = sorted(path.stem for path in (CONFIGS / "losses").glob("*.yaml"))
TASKS = sorted(path.stem for path in (CONFIGS / "tasks").glob("*.yaml"))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_overlay_builds_and_its_patch_fits(name: str) -> None:
    config = compose("train", network=name, settings=["channels=[a, b]", "label_values=[0, 1, 2]"]).config
    geometry = build(config, "geometry")
    assert geometry.accepts(config["patch_size"])
    margins = geometry.loss_margins(config["loss_margin"])
    assert all(n > 2 * m for n, m in zip(geometry.output_size(config["patch_size"]), margins, strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_overlay_builds(name: str) -> None:
    assert callable(build(compose("train", loss=name).config, "loss"))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_overlay_merges(name: str) -> None:
    config = compose("train", config_files=[name]).config
    assert build(config, "geometry").accepts(config["patch_size"])


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
    config = compose("train").config
    put(config, "network_def#dropout", 0.5)
    assert config["network_def"]["dropout"] == 0.5
    put(config, "augmentation#transforms#0#prob", 0.0)
    assert config["augmentation"]["transforms"][0]["prob"] == 0.0
    with pytest.raises(RequestError, match="did you mean 'dropout'"):
        put(config, "network_def#dropuot", 0.5)
    with pytest.raises(RequestError, match="entries 0 to 8"):
        put(config, "augmentation#transforms#9#prob", 0.0)
    with pytest.raises(RequestError, match="single value"):
        put(config, "seed#deep", 0)


def test_a_key_that_lies_deeper_is_named_and_few_are_listed() -> None:
    config = compose("train").config
    for key, meant in (("lr", "'optimizer#lr'"), ("optimiser#lr", "'optimizer#lr'"), ("_target_", "#")):
        with pytest.raises(RequestError, match=f"no configuration key '{key}': did you mean .*{meant}"):
            put(config, key, 1)
    with pytest.raises(RequestError) as refused:
        put(config, "batchsize", 3)
    assert "did you mean 'batch_size'?" in str(refused.value)
    listed = str(refused.value).split("Valid names: ")[1].split(" and ")[0].split(", ")
    assert len(listed) == 12
    assert set(listed) <= set(config)
    with pytest.raises(RequestError, match=r"o.yaml: no configuration key 'lr': did you mean 'optimizer#lr'\?$"):
        merge(config, {"lr": 3}, "o.yaml")


def test_an_overlay_may_add_only_keys_that_something_refers_to() -> None:
    config = compose("train").config
    merge(config, {"my_rate": 0.1, "optimizer#lr": "@my_rate"}, "mine.yaml")
    assert config["optimizer"]["lr"] == "@my_rate"
    with pytest.raises(RequestError, match="mine.yaml: no configuration key 'bach_size': did you mean 'batch_size'"):
        merge(config, {"bach_size": 3}, "mine.yaml")
    with pytest.raises(RequestError, match="mine.yaml: no configuration key 'optimizer#rl': did you mean 'lr'"):
        merge(config, {"optimizer#rl": 3}, "mine.yaml")


def test_later_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("batch_size: 7\nseed: 1\n")
    second.write_text("batch_size: 8\n")
    config = compose("train", network="deepmedic", config_files=[first, second], settings=["seed=3"]).config
    assert (config["batch_size"], config["seed"]) == (8, 3)


def test_each_key_has_the_source_of_its_last_word(dataset_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("optimizer#lr: 0.1\nseed: 1\n")
    composed = compose(
        "train",
        dataset=Dataset.load(dataset_dir),
        network="deepmedic",
        loss="dice",
        config_files=[tmp_path / "mine.yaml", "ct"],
        options={"fold": 1, "device#name": "cpu"},
        settings=["seed=2", "step::clip_norm=null"],
    )
    assert set(composed.origin) == set(composed.config)
    assert {key: composed.origin[key] for key in ("epoch_length", "channels", "mirror_axes", "patch_size", "loss")} == {
        "epoch_length": Source.TEMPLATE,
        "channels": Source.DATASET,
        "mirror_axes": Source.PLAN,
        "patch_size": Source.NETWORK,  # the plan has one too
        "loss": Source.LOSS,
    }
    by_user = {key for key in composed.config if composed.set_by_user(key)}
    assert by_user == {"optimizer", "seed", "fold", "device", "step", *overlay("tasks", "ct")}
    assert not composed.set_by_user("no such key")
    assert composed.config["seed"] == 2


def test_each_file_is_read_once(dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("minutes: 0.001\n")
    packaged_once.cache_clear()  # packaged files are read once a process
    read: list[Path] = []
    text = Path.read_text

    def noted(path: Path, *args: Any, **options: Any) -> str:
        read.append(path)
        return text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", noted)
    data = Dataset.load(dataset_dir)
    composed = compose("train", dataset=data, network="deepmedic", config_files=[tmp_path / "mine.yaml", "ct"])
    fit_to_data(composed, data)
    yaml_files = [path for path in read if path.suffix == ".yaml"]
    assert len(yaml_files) == len(set(yaml_files)) == 6  # common, train, plan, deepmedic, mine, ct


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
    trained = compose("train", network="deepmedic", settings=["spacing=[1,1,2]", "inferer#flips=[0]"]).config
    for stage in ("inference", "evaluate"):
        config = derive(stage, trained)
        assert config["network_def"]["_target_"] == "rarevox.networks.DeepMedic"
        assert config["spacing"] == [1, 1, 2]
        assert config["inferer"]["flips"] == [0]
        assert "augmentation" not in config


def test_a_folder_of_an_overlay_s_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert compose("train", config_files=["demo"]).config["crop_to_content"] is True
    with pytest.raises(RequestError, match="no task is called 'dmeo': did you mean 'demo'"):
        compose("train", config_files=["dmeo"])


def test_configurations_are_ascii_since_monai_reads_them_in_the_platform_s_encoding() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert path.read_bytes().isascii(), path
    assert write_yaml({"structures": ["lésion"]}).isascii()
    assert yaml.safe_load(write_yaml({"structures": ["lésion"]})) == {"structures": ["lésion"]}
