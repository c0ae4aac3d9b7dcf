"""`rarevox export` from end to end for every shipped network on volumes, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rarevox.pipeline.compose import CONFIGS
from rarevox.pipeline.export.export import export
from rarevox.pipeline.export.programs import FORMATS
from tests.pipeline.export.untrained import untrained_run

WIDTH = ["network_def#width=4"]
FEATURES = ["network_def#channels=[4,4,4,4,4,4,4,4]", "network_def#joint=[8,8]"]
NARROW = {
    "highresnet": WIDTH,
    "highresnet_narrow": WIDTH,
    "highresnet_paper": WIDTH,
    "deepmedic": FEATURES,
    "deepmedic_paper": FEATURES,
    # With 3 and 5 sizes are multiples of 15, and images of 155³ are checked.
    "deepmedic_wide": [*FEATURES, "network_def#low_resolution_factors=[2,3]", "patch_size=[108,108,108]"],
    "unet": ["network_def#channels=[4,8,8,8]"],
    "segresnet": ["network_def#init_filters=8"],
    "dynunet": ["network_def#filters=[4,8,8,8]"],
    "resenc_unet": ["network_def#filters=[4,8,8,8,8]"],
}
"""Settings under which an export takes seconds; ``--whole-networks`` leaves them out."""

IN_EVERY_FORMAT = {"dynunet"}
"""ONNX takes ten seconds of a network's export, of the wide DeepMedic's more than a minute; `test_export.py` has
HighResNet's. The others are traced alone, unless ``--whole-networks`` is given."""


def test_every_overlay_on_volumes_is_here() -> None:
    assert set(NARROW) == {file.stem for file in (CONFIGS / "networks").glob("*.yaml") if not file.stem.endswith("2d")}


@pytest.mark.parametrize("name", NARROW)
def test_a_shipped_network_has_the_same_logits_elsewhere(
    name: str, dataset_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The command itself holds each file's logits against the network's, at three sizes, and refuses more than 1e-4."""
    pytest.importorskip("onnxruntime")
    whole = request.config.getoption("--whole-networks")
    run = untrained_run(tmp_path / "run", dataset_dir, name, () if whole else NARROW[name])
    formats = list(FORMATS) if whole or name in IN_EVERY_FORMAT else ["torchscript"]
    assert export(run, tmp_path / "out", formats) == 0
    told = json.loads((tmp_path / "out" / "export.json").read_text())["files"]
    assert {one["format"] for one in told.values()} == set(formats)
    for one in told.values():
        assert len({tuple(size) for size in one["checked_sizes"]}) == 3
