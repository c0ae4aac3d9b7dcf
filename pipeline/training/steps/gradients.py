"""The gradients of a loss's terms: each on its own, their inner products, and what is left without the conflict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from rarevox.pipeline.training import processes

Gradient = list[Tensor]


def trained(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that the terms share: all that are trained, since both terms read the same logits."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def term_gradients(
    terms: Mapping[str, Tensor], parameters: Sequence[Tensor], *, keep_graph: bool = False
) -> dict[str, Gradient]:
    """The gradient of every term with respect to the parameters: one backward pass a term, nothing in ``.grad``.

    Args:
        terms: scalars that hang on one graph.
        parameters: zero stands for a parameter that a term does not touch.
        keep_graph: the caller has a backward pass of its own to make.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> {name: g[0].tolist() for name, g in term_gradients({"a": w.sum(), "b": w.square().sum()}, [w]).items()}
    {'a': [1.0, 1.0], 'b': [2.0, 4.0]}
    """
    found: dict[str, Gradient] = {}
    for number, (name, term) in enumerate(terms.items(), start=1):
        retain = keep_graph or number < len(terms)
        found[name] = list(
            torch.autograd.grad(term, parameters, retain_graph=retain, allow_unused=True, materialize_grads=True)
        )
        processes.mean_of(found[name])  # as DistributedDataParallel does for an ordinary backward pass
    return found


def inner(first: Iterable[Tensor], second: Iterable[Tensor]) -> Tensor:
    """Σ a·b over all entries, a scalar in float64: the squares of small float32 gradients would vanish."""
    return torch.dot(_in_one(first), _in_one(second))


def _in_one(gradient: Iterable[Tensor]) -> Tensor:
    """All entries in one row: a handful of kernels where there were three for each of many tensors."""
    return torch.cat([part.flatten() for part in gradient]).double()


def inners(first: Gradient, second: Gradient) -> Tensor:
    """(3,): a·a, b·b and a·b, float64, on the device of the gradients.

    >>> inners([torch.tensor([3.0])], [torch.tensor([-2.0])]).tolist()
    [9.0, 4.0, -6.0]
    """
    a, b = _in_one(first), _in_one(second)
    return torch.stack([torch.dot(a, a), torch.dot(b, b), torch.dot(a, b)])


def cosine(of_first: float, of_second: float, product: float) -> float:
    """a·b / (|a| |b|) of the three that :func:`inners` gives: 1 where the terms pull the same way, −1 where they pull
    apart; NaN where one does not pull.

    >>> cosine(1.0, 2.0, -1.0), cosine(0.0, 2.0, 0.0)
    (-0.7071067811865475, nan)
    """
    lengths = math.sqrt(of_first) * math.sqrt(of_second)
    return product / lengths if lengths > 0 else math.nan


def without_conflict(first: Gradient, second: Gradient) -> tuple[Gradient, Gradient]:
    """Both gradients, each less its component against the other where they conflict (a·b < 0); PCGrad for two terms.

    a' = a − (a·b / |b|²) b and b' = b − (a·b / |a|²) a, so that a'·b = 0 and b'·a = 0: to first order a step along
    the one no longer raises the other. Gradients that do not conflict come back unchanged, and so do those that are
    not finite.

    Source: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1; with two terms its random
    order is of no consequence, as each is projected once, on the other as it was.

    >>> a, b = without_conflict([torch.tensor([1.0, 0.0])], [torch.tensor([-1.0, 1.0])])
    >>> a[0].tolist(), b[0].tolist()
    ([0.5, 0.5], [0.0, 1.0])
    """
    product = inner(first, second)
    conflict = (product > -math.inf) & (product < 0)
    if not product.is_cuda and not conflict:
        return first, second
    # On a GPU both ways are one, so that nobody waits: without a conflict 0 times the other is taken off.
    shares = [torch.where(conflict, product / inner(g, g), 0) for g in (first, second)]
    of_first, of_second = (share.to(first[0].dtype) for share in shares)  # another type would take a kernel a tensor
    less, more = torch._foreach_mul(second, of_second), torch._foreach_mul(first, of_first)
    return list(torch._foreach_sub(first, less)), list(torch._foreach_sub(second, more))
