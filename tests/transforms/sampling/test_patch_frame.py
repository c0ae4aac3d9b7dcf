from __future__ import annotations

import pytest

from rarevox.transforms import PatchFrame


@pytest.mark.parametrize(
    ("size", "patch", "margin"), [(7, 3, 0), (7, 5, 1), (4, 7, 0), (5, 9, 2), (1, 1, 0), (6, 6, 0)]
)
def test_around_a_voxel_is_every_start_that_the_rule_allows(size: int, patch: int, margin: int) -> None:
    effective = patch - 2 * margin
    frame = PatchFrame.of((patch,), margin)
    for voxel in range(size):
        allowed = []
        for start in range(-2 * patch, size + patch):
            begin = start + margin
            holds = begin <= voxel < begin + effective
            fits = 0 <= begin <= size - effective if effective <= size else size - effective <= begin <= 0
            if holds and fits:
                allowed.append(start)
        ((low, high),) = frame.around((voxel,), (size,))
        assert list(range(low, high + 1)) == allowed


def test_an_impossible_margin_is_refused_with_the_figures() -> None:
    with pytest.raises(ValueError, match=r"patch_size \(4, 4, 4\) less margin \(2, 2, 2\)"):
        PatchFrame.of((4, 4, 4), 2)
    with pytest.raises(ValueError, match="differ in length"):
        PatchFrame.of((4, 4, 4), (1, 1))
    with pytest.raises(ValueError, match="margin is"):
        PatchFrame.of((4, 4, 4), -1)
