from __future__ import annotations

from torch import nn

from rarevox.networks.cpu.fold import fold
from rarevox.networks.protocols import NormActPair


def test_a_norm_that_still_learns_is_not_folded() -> None:
    assert fold(NormActPair(nn.BatchNorm3d(4).train(), nn.ReLU())) is None
    assert fold(NormActPair(nn.BatchNorm3d(4, track_running_stats=False).eval(), nn.ReLU())) is None
    assert fold(NormActPair(nn.InstanceNorm3d(4).eval(), nn.ReLU())) is None
    assert fold(NormActPair(nn.BatchNorm3d(4).eval(), nn.GELU())) is None
    folded = fold(NormActPair(nn.BatchNorm3d(4).eval(), nn.PReLU()))
    assert folded is not None
    assert [one.shape for one in folded] == [(4,)] * 3
