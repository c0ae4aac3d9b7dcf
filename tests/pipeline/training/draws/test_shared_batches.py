from __future__ import annotations

import gc
import pickle

import torch

from rarevox.pipeline.training.draws.shared_batches import Buffer, NumberedBatches, SharedBatch, SharedBuffers


def made(buffers: SharedBuffers, number: int, batch: dict[str, torch.Tensor]) -> SharedBatch:
    buffer = Buffer(buffers.memory[number])
    return SharedBatch(number, {key: buffer.place(value) for key, value in batch.items()})


def test_a_batch_comes_back_as_it_was_made() -> None:
    batch = {
        "image": torch.randn(2, 1, 3, 3, 3),
        "label": torch.randint(0, 3, (2, 1, 3, 3, 3), dtype=torch.uint8),
        "turned": torch.arange(12).reshape(3, 4).T,
        "none": torch.zeros(0, 3),
    }
    buffers = SharedBuffers(1, 4096)
    sent = pickle.loads(pickle.dumps(made(buffers, 0, batch)))
    found = sent.tensors(buffers.memory[0])
    assert all(torch.equal(found[key], batch[key]) and found[key].dtype == batch[key].dtype for key in batch)


def test_what_is_made_in_the_buffer_is_not_copied_and_what_does_not_fit_is_sent() -> None:
    memory = torch.zeros(256, dtype=torch.uint8)
    buffer = Buffer(memory)
    inside = buffer.allocate((4, 4), torch.float32, "cpu")
    assert buffer.place(inside) == (0, (4, 4), torch.float32)
    assert buffer.used == 64
    large = torch.ones(1000)
    assert buffer.place(large) is large
    assert buffer.allocate((1000,), torch.float32, "cpu").shape == (1000,)
    assert buffer.used == 64


def test_parts_of_a_buffer_do_not_overlap() -> None:
    buffer = Buffer(torch.zeros(1024, dtype=torch.uint8))
    parts = [buffer.allocate((n,), kind, "cpu") for n, kind in ((3, torch.uint8), (5, torch.float64), (1, torch.int16))]
    for value, part in enumerate(parts, start=1):
        part.fill_(value)
    assert [set(part.tolist()) for part in parts] == [{1}, {2.0}, {3}]


def test_a_buffer_is_free_again_only_when_the_last_view_has_gone() -> None:
    buffers = SharedBuffers(1, 1024)
    number = buffers.take()
    batch = made(buffers, number, {"image": torch.full((4,), 5.0)}).tensors(buffers.lease(number))
    view = batch["image"][1:]
    assert buffers.take() == -1
    del batch
    gc.collect()
    assert buffers.take() == -1
    assert view.tolist() == [5.0] * 3
    del view
    gc.collect()
    assert buffers.take() == number


def test_batches_are_numbered_while_buffers_are_free() -> None:
    buffers = SharedBuffers(2, 64)
    batches = iter(NumberedBatches(range(100), 3, buffers))
    assert [next(batches)[1] for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    numbers = [number for number, _ in (next(iter(NumberedBatches(range(9), 1, b))) for b in (buffers, None))]
    assert numbers == [-1, -1]
