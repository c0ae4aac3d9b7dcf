"""The device of these tests: CUDA, or with ``--on cpu`` the CPU, to see that the tests themselves are sound."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def on(request: pytest.FixtureRequest) -> str:
    """What ``--device`` is given."""
    device = str(request.config.getoption("--on"))
    if device.startswith(
        "cuda"
    ):  # what a device does not compute alike in every run is refused where it would be taken
        torch.backends.cudnn.deterministic = True
    return device
