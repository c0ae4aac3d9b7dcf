from __future__ import annotations

from rarevox.networks.cpu.spare import Spare
from rarevox.networks.cpu.volumes import voxel_stride


def test_spare_memory_grows_where_it_must() -> None:
    spare = Spare()
    small = spare.take("y", (1, 2, 3, 3, 3))
    large = spare.take("y", (2, 4, 3, 3, 3))
    assert small.data_ptr() != large.data_ptr()
    assert voxel_stride(large.movedim(1, -1)) == 8
    assert voxel_stride(spare.take("wide", (1, 30, 3, 3, 3)).movedim(1, -1)) == 32
    assert spare.take("z", (1, 2, 3, 3, 3)).data_ptr() not in (small.data_ptr(), large.data_ptr())
