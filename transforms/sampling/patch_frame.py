"""The size of a training patch, the region of it that the loss sees, and where in a volume it may lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PatchFrame:
    """A patch of ``size`` voxels whose effective region, the part that the loss sees, is ``margin`` smaller per face.

    A patch lies in a volume when its effective region does: 0 ≤ start + margin ≤ n − e on each axis, with n the
    volume's size and e = size − 2·margin. Where e > n the region holds the whole volume: n − e ≤ start + margin ≤ 0.
    The margin itself may reach beyond the volume, so that border voxels are as trainable as inner ones.

    Attributes:
        size: voxels, one an axis.
        margin: voxels from each face that the loss does not see, one an axis.

    Example:
        >>> PatchFrame.of((6, 6), 1).effective
        (4, 4)
    """

    size: tuple[int, ...]
    margin: tuple[int, ...]

    @classmethod
    def of(cls, size: Sequence[int], margin: int | Sequence[int] = 0) -> PatchFrame:
        """A checked frame; one number as margin counts for every axis.

        Raises:
            ValueError: the lengths differ, a margin is negative, or nothing is left for the loss.
        """
        size = tuple(int(p) for p in size)
        margin = (margin,) * len(size) if isinstance(margin, int) else tuple(int(m) for m in margin)
        if len(margin) != len(size):
            raise ValueError(f"margin {margin} and patch_size {size} differ in length")
        if any(m < 0 for m in margin):
            raise ValueError(f"margin is {margin}; expected 0 or more voxels")
        if any(p - 2 * m < 1 for p, m in zip(size, margin, strict=True)):
            raise ValueError(
                f"patch_size {size} less margin {margin} on both sides leaves nothing for the loss; "
                "enlarge the patch or reduce loss_margin"
            )
        return cls(size, margin)

    @property
    def effective(self) -> tuple[int, ...]:
        """Size of the region that the loss sees."""
        return tuple(p - 2 * m for p, m in zip(self.size, self.margin, strict=True))

    def limits(self, shape: Sequence[int], *, overhang: bool = False) -> list[tuple[int, int]]:
        """First and last start of the patch, an axis each, in a volume of ``shape``.

        With ``overhang`` the effective region may reach beyond the volume as long as it holds a voxel of it; every
        voxel is then held by the same number of patches.

        >>> PatchFrame.of((4,)).limits((10,)), PatchFrame.of((4,)).limits((10,), overhang=True)
        ([(0, 6)], [(-3, 9)])
        >>> PatchFrame.of((6,), 1).limits((10,)), PatchFrame.of((8,)).limits((3,))
        ([(-1, 5)], [(-5, 0)])
        """
        found = []
        for n, e, m in zip(shape, self.effective, self.margin, strict=True):
            low, high = (1 - e, n - 1) if overhang else (min(0, n - e), max(0, n - e))
            found.append((low - m, high - m))
        return found

    def around(self, voxel: Sequence[int], shape: Sequence[int]) -> list[tuple[int, int]]:
        """First and last start, an axis each, of the patches in the volume whose effective region holds ``voxel``.

        >>> [PatchFrame.of((4,)).around((v,), (10,)) for v in (0, 5, 9)]
        [[(0, 0)], [(2, 5)], [(6, 6)]]
        """
        return [
            (max(v - e + 1 - m, low), min(v - m, high))
            for v, e, m, (low, high) in zip(voxel, self.effective, self.margin, self.limits(shape), strict=True)
        ]
