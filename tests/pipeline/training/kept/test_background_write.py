from __future__ import annotations

import threading
from collections import OrderedDict

import pytest
import torch

from rarevox.pipeline.training.kept.background_write import BackgroundWrite, snapshot


def test_a_snapshot_is_equal_and_shares_nothing() -> None:
    layer = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.BatchNorm3d(2)).to(
        memory_format=torch.channels_last_3d
    )
    state = layer.state_dict()
    taken = snapshot({"network": state, "list": [torch.ones(2), (1, "a", None)]})
    assert isinstance(taken["network"], OrderedDict)
    assert taken["network"]._metadata == state._metadata
    assert taken["list"][1] == (1, "a", None)
    for name, tensor in state.items():
        copied = taken["network"][name]
        assert torch.equal(copied, tensor)
        assert copied.stride() == tensor.stride()
        assert copied.data_ptr() != tensor.data_ptr()
    with torch.no_grad():
        layer[0].weight.add_(1)
    assert not torch.equal(taken["network"]["0.weight"], layer.state_dict()["0.weight"])


def test_one_write_at_a_time() -> None:
    written, free, both = [], threading.Event(), BackgroundWrite()

    def write(content: int) -> None:
        free.wait(60)
        written.append(content)

    both.start(write, 1)
    assert both.under_way
    free.set()
    both.start(write, 2)
    both.finish()
    assert written == [1, 2]
    assert not both.under_way


def test_an_error_that_the_writer_did_not_expect_is_raised_once() -> None:
    def write(_: object) -> None:
        raise ZeroDivisionError

    background = BackgroundWrite()
    background.start(write, None)
    with pytest.raises(ZeroDivisionError):
        background.finish()
    background.finish()
