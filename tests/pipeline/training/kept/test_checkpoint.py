from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.kept import checkpoint
from rarevox.pipeline.training.kept.checkpoint import (
    load_tensors,
    load_weights,
    random_states,
    restore_random_states,
    save_tensors,
    save_weights,
)


def test_random_states_come_back_exactly(tmp_path: Path) -> None:
    for draw in (random.random, np.random.rand, lambda: float(torch.rand(1))):
        draw()
    np.random.randn()  # leaves a cached second normal behind, which is part of the state
    save_tensors(random_states(), tmp_path / "a.pt")
    first = [random.random(), np.random.randn(), np.random.rand(), float(torch.rand(1))]
    restore_random_states(load_tensors(tmp_path / "a.pt"))
    assert [random.random(), np.random.randn(), np.random.rand(), float(torch.rand(1))] == first


def test_a_failed_write_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_tensors({"a": torch.ones(3)}, path)

    def full_disk(content: object, target: Path) -> None:
        Path(target).write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(OSError, match="could not write"):
        save_tensors({"a": torch.zeros(3)}, path)
    assert torch.equal(load_tensors(path)["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("pwned",))

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(RequestError, match="not a readable checkpoint"):
        load_tensors(tmp_path / "evil.pt")


def test_weights_round_trip_and_mismatches_are_named(tmp_path: Path) -> None:
    network = torch.nn.Conv3d(2, 3, 3).to(memory_format=torch.channels_last_3d)
    save_weights(network, tmp_path / "model.pt")
    other = load_weights(torch.nn.Conv3d(2, 3, 3), tmp_path / "model.pt")
    assert torch.equal(other.weight, network.weight)
    assert not other.training
    with pytest.raises(RequestError, match="layer 'weight' is"):
        load_weights(torch.nn.Conv3d(2, 4, 3), tmp_path / "model.pt")
    with pytest.raises(RequestError, match="layer 'bias' is absent|layer 'bias' is .* absent"):
        load_weights(torch.nn.Conv3d(2, 3, 3, bias=False), tmp_path / "model.pt")
    with pytest.raises(RequestError, match="does not exist"):
        load_weights(network, tmp_path / "none.pt")


def test_an_archive_that_unpacks_to_more_than_the_file_is_refused(tmp_path: Path) -> None:
    """torch.save stores what it writes as it is: 1 MB of zeros in 1 kB would be someone else's doing."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(1 << 20))
    with pytest.raises(RequestError, match="unpack to 1048576 bytes"):
        load_tensors(path)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(RequestError, match="a pipe"):
        load_tensors(tmp_path / "model.pt")


def test_weights_are_tensors_by_layer(tmp_path: Path) -> None:
    for content in ([1], {"a": 1}, 3):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(RequestError, match="no weights by layer"):
            load_weights(torch.nn.Linear(2, 2), tmp_path / "model.pt")
