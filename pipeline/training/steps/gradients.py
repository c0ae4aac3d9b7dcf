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


def inner(first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    """Σ a·b over all entries, in float64: the squares of small float32 gradients would vanish."""
    products = [(a.double() * b.double()).sum() for a, b in zip(first, second, strict=True)]
    return float(torch.stack(products).sum())


def norm(gradient: Gradient) -> float:
    """√Σ a², the length of the gradient over all parameters.

    >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
    5.0
    """
    return math.sqrt(inner(gradient, gradient))


def cosine_between(first: Gradient, second: Gradient) -> float:
    """a·b / (|a| |b|): 1 where the terms pull the same way, −1 where they pull apart; NaN where one does not pull.

    >>> cosine_between([torch.tensor([1.0, 0.0])], [torch.tensor([-1.0, 1.0])])
    -0.7071067811865475
    """
    lengths = norm(first) * norm(second)
    return inner(first, second) / lengths if lengths > 0 else math.nan


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
    if not -math.inf < product < 0:
        return first, second
    of_first, of_second = product / inner(first, first), product / inner(second, second)
    return (
        [a - of_second * b for a, b in zip(first, second, strict=True)],
        [b - of_first * a for a, b in zip(first, second, strict=True)],
    )
