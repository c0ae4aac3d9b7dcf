from __future__ import annotations

import numpy as np
import torch

from rarevox.transforms import AnatomyMaskd
from rarevox.transforms.sampling.content import content_of


def test_a_case_s_own_mask_is_kept_as_zeros_and_ones() -> None:
    mask = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])
    out = AnatomyMaskd()({"image": torch.rand(1, 2, 2), "mask": mask})
    assert out["mask"].tolist() == [[[0, 1], [1, 0]]] and out["mask"].dtype == torch.uint8


def test_without_one_it_is_the_content() -> None:
    image = torch.randn(2, 8, 8, 8)
    image[:, :3] = -0.4
    case = {"image": image}
    out = AnatomyMaskd()(case)
    np.testing.assert_array_equal(out["mask"][0].numpy() > 0, content_of(image.numpy()))
    assert not out["mask"][:, :3].any() and out["mask"][:, 3:].all() and "mask" not in case
