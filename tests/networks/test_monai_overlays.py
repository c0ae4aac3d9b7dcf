"""MONAI's networks as the overlays build them: the sizes that their geometry admits, down to the smallest, work."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from rarevox.pipeline.compose import CONFIGS, read_yaml


def overlays() -> list[str]:
    files = sorted((CONFIGS / "networks").glob("*.yaml"))
    return [file.stem for file in files if "monai" in read_yaml(file)["network_def"]["_target_"]]


@pytest.mark.parametrize("name", overlays())
def test_the_smallest_sizes_work(name: str) -> None:
    """A scan may be smaller than the patch; a norm over a single voxel has no variance, and refuses it."""
    config = read_yaml(CONFIGS / "networks" / f"{name}.yaml")
    parser = ConfigParser({**config, "in_channels": 1, "out_channels": 2})
    network, geometry = (parser.get_parsed_content(key) for key in ("network_def", "geometry"))
    least = geometry.minimum
    for size in (least, tuple(n + step for n, step in zip(least, geometry.multiple, strict=True))):
        geometry.check(size)
        x = torch.randn(2, 1, *size)
        for part in (x, x[:1]):
            with torch.no_grad():
                assert network.eval()(part).shape == (len(part), 2, *size)
        assert torch.isfinite(network.train()(x)).all()
