"""The rule for the network, and where another network takes the place of the planned one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.plan_file import make_plan
from rarevox.pipeline.training.fit import fit_to_data
from tests.pipeline.preparation.plans import edit


@pytest.mark.parametrize(
    ("share", "components", "network"), [(0.004, 5, "unet"), (0.004, 4, "highresnet"), (0.02, 9, "highresnet")]
)
def test_many_rare_lesions_get_a_unet_and_its_patch(
    dataset: Dataset, share: float, components: int, network: str
) -> None:
    fingerprint = json.loads((dataset.path.parent / "fingerprint.json").read_text())
    fingerprint["foreground_share_held"]["median"] = share
    for row in fingerprint["structures"].values():
        row["components"]["median"] = components
    plan = {choice.key: choice.value for choice in make_plan(dataset, fingerprint)}
    assert plan["network"] == network
    # UNet takes multiples of 8; HighResNet runs fastest in multiples of 16.
    assert plan["patch_size"] == ([24, 24, 24] if network == "unet" else [16, 16, 16])


def test_the_network_that_a_plan_names_is_trained_unless_another_is_named(dataset: Dataset) -> None:
    edit(dataset, network="unet", patch_size=[40, 40, 40])
    composed = compose("train", dataset=dataset)
    assert composed.config["network_def"]["_target_"] == "monai.networks.nets.UNet"
    assert composed.config["network"]["_target_"] == "rarevox.pipeline.place_network"
    assert composed.config["patch_size"] == [40, 40, 40]
    named = compose("train", dataset=dataset, network="deepmedic")
    assert named.config["network_def"]["_target_"] == "rarevox.networks.DeepMedic"
    assert named.config["patch_size"] == compose("train", network="deepmedic").config["patch_size"]
    for wrong in ("unett", 3, ["unet"]):
        edit(dataset, network=wrong)
        with pytest.raises(RequestError, match=r"plan\.yaml: no network is called .*unet"):
            compose("train", dataset=dataset)


def test_a_planned_network_goes_where_the_user_brings_one(dataset: Dataset, tmp_path: Path) -> None:
    """With its geometry, which would be that of another; and who sets a part of another network is told of the plan."""
    edit(dataset, network="unet")
    (tmp_path / "mine.yaml").write_text(
        yaml.dump({"network_def": {"_target_": "rarevox.networks.DeepMedic", "in_channels": 1, "out_channels": 3}})
    )
    config = compose("train", dataset=dataset, config_files=[tmp_path / "mine.yaml"]).config
    assert config["geometry"] == compose("train").config["geometry"]
    with pytest.raises(RequestError, match=r"network_def#width.*the network is unet, as plan\.yaml says"):
        compose("train", dataset=dataset, settings=["network_def#width=4"])


def test_the_patch_of_a_network_that_was_written_into_the_plan_is_fitted(dataset: Dataset) -> None:
    """Where the line of the patch went with the old one; else the patch stands."""
    plan = yaml.safe_load((dataset.path.parent / "plan.yaml").read_text(encoding="utf-8"))
    rest = {key: value for key, value in plan.items() if key not in ("patch_size", "batch_size")}
    (dataset.path.parent / "plan.yaml").write_text(yaml.dump(rest | {"network": "unet"}))
    # 22 × 20 × 18 voxels, in multiples of 8.
    assert fit_to_data(compose("train", dataset=dataset), dataset)["patch_size"] == [24, 24, 24]
    edit(dataset, patch_size=[16, 16, 16])
    assert fit_to_data(compose("train", dataset=dataset), dataset)["patch_size"] == [16, 16, 16]


def test_a_network_that_is_named_sees_as_many_voxels_a_step_in_smaller_patches(dataset: Dataset) -> None:
    """Two patches of 48³ are sixteen of 24³: eight at most, and no more than the six cases for training."""
    cases = len(dataset.training)
    fitted = fit_to_data(compose("train", dataset=dataset, network="unet"), dataset)
    assert (fitted["patch_size"], fitted["batch_size"]) == ([24, 24, 24], min(8, cases))
    by_hand = fit_to_data(compose("train", dataset=dataset, network="unet", settings=["batch_size=3"]), dataset)
    assert by_hand["batch_size"] == 3
