"""Global random generators under the number of a draw, so that no loader worker has a state of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random import mtrand

_NUMPY = np.random.MT19937(0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, Python's, NumPy's and torch's CPU generators start from ``seed``; afterwards they are as they were.

    MONAI's transforms have generators of their own, which are seeded for every draw; others (TorchIO's, a user's) take
    the global ones. With both seeded by the number of the draw, its patch does not depend on which worker made it or on
    what that worker did before, and a resumed run needs no state of any worker. It costs 0.06 ms. (NumPy's generator is
    swapped rather than copied, which would cost 0.3 ms; a second normal number that it had in store is dropped.)

    >>> with seeded(1):
    ...     first = random.random(), float(np.random.rand()), float(torch.rand(1))
    >>> with seeded(1):
    ...     first == (random.random(), float(np.random.rand()), float(torch.rand(1)))
    True
    """
    before = random.getstate(), mtrand.get_bit_generator(), torch.get_rng_state()
    random.seed(seed)
    mtrand.set_bit_generator(_NUMPY)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        mtrand.set_bit_generator(before[1])
        torch.set_rng_state(before[2])
