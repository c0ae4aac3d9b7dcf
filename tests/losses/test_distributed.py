"""A batch-wide loss over two processes against the same batch in one."""

from __future__ import annotations

import time

import pytest
import torch
from torch import distributed, multiprocessing, nn

from rarevox import losses


def batch():
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(4, 2, 6, 6, generator=generator)
    labels = torch.randint(0, 3, (4, 1, 6, 6), generator=generator)
    labels[:2][labels[:2] == 2] = 0  # the first process has no voxel of class 2
    return images, labels


def network():
    torch.manual_seed(0)
    return nn.Conv2d(2, 3, 3, padding=1)


def one_process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    images, labels = batch()
    part = slice(2 * rank, 2 * rank + 2)
    model = nn.parallel.DistributedDataParallel(network())
    results = {}
    for name in ("GeneralizedDiceCELoss", "DiceLoss"):
        model.zero_grad()
        value = getattr(losses, name)(batch=True)(model(images[part]), labels[part])
        value.backward()
        results[name] = (value.detach(), [parameter.grad.clone() for parameter in model.parameters()])
    torch.save(results, f"{folder}/{rank}.pt")
    # The reducer of the model holds on to the group, whose end then waits for the other process, which may be gone.
    del model, value
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_value_and_the_gradient_of_the_whole_batch(tmp_path):
    if not distributed.is_available():
        pytest.skip("torch was built without distributed")
    both = multiprocessing.start_processes(
        one_process, args=(str(tmp_path),), nprocs=2, join=False, start_method="forkserver"
    )
    until = time.monotonic() + 120
    while not both.join(timeout=1):
        if time.monotonic() > until:  # their results are there, or are missed below; only their end may hang
            for process in both.processes:
                process.kill()
            break
    images, labels = batch()
    for rank in range(2):
        for name, (value, gradients) in torch.load(tmp_path / f"{rank}.pt").items():
            model = network()
            expected = getattr(losses, name)(batch=True)(model(images), labels)
            expected.backward()
            torch.testing.assert_close(value, expected.detach())
            for gradient, parameter in zip(gradients, model.parameters(), strict=True):
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-7)
