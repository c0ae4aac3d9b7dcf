"""What goes to a GPU goes as it is, through pinned memory; that nobody waits is held in `tests/pretended_cuda`."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from rarevox.pipeline.inference.tiling.sending import in_pinned_memory, on_device_blocks, sent

CPU = torch.device("cpu")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pinned memory without a device: where it would be, in the order of the calls."""
    places: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        places.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: tensor.data_ptr() in places)
    return places


def test_an_image_is_pinned_once_with_all_that_is_known_of_it(pinned) -> None:
    image = MetaTensor(torch.randn(1, 3, 4, 5), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    image.meta["spatial_shape"] = [3, 4, 5]
    image.push_applied_operation({"class": "Flip"})
    found = in_pinned_memory(image)
    assert isinstance(found, MetaTensor) and torch.equal(found.as_tensor(), image.as_tensor())
    assert torch.equal(found.affine, image.affine) and found.meta["spatial_shape"] == [3, 4, 5]
    assert found.applied_operations == image.applied_operations
    assert in_pinned_memory(found) is found and len(pinned) == 1


def test_on_a_cpu_nothing_is_copied(pinned) -> None:
    image = torch.randn(1, 3, 4, 5)
    assert sent(image, CPU) is image
    blocks = [torch.full((2,), float(number)) for number in range(3)]
    found = list(on_device_blocks(lambda number: blocks[number], 3, CPU))
    assert all(one is block for one, block in zip(found, blocks, strict=True)) and not pinned
