"""How far rounding may move a result: from the format, the number of summands and the algorithm, on any CPU.

Where a sum is rounded depends on the machine: in lanes of four, eight or sixteen, with fused multiplications or
without, in bfloat16 after every summand on a CPU that cannot add in it and once at the end on one that can. A bound
must hold for all of these, so it counts roundings and takes the most of them that an algorithm may do.

Two models of a sum of n terms t: in the worst case every rounding errs by the unit roundoff u to the same side
(`sum_bound`, relative to Σ|t|; equal terms come near it), and for terms of random signs the roundings are independent,
uniform in ±u (`random_sum_bound`, relative to the larger of √Σt² and the sum).

Source: N. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, SIAM 2002, chapters 3 and 4; Higham
and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from rarevox.networks.cpu.winograd.toom_cook import ANALYSIS, FILTER, SYNTHESIS, TAPS, TILE

# Six standard deviations: two among 10⁹ independent normal errors lie further out.
_DEVIATIONS = 6.0
# A value goes through three axes of each of the three transforms, each a sum of at most six terms whose partial sums
# are rounded like one sum of six; products of the constants add one rounding each: 3 · 3 · ((6 + 1)/2 + 1).
_TRANSFORMS = 3 * 3 * ((TILE + TAPS - 1 + 1) / 2 + 1)


def unit_roundoff(dtype: torch.dtype) -> float:
    """The relative error of one rounding to nearest, at most: half the distance from 1 to the next number.

    bfloat16 has 8 significant bits (7 are stored), so that the next number after 1 is 1 + 2⁻⁷.

    >>> unit_roundoff(torch.bfloat16) == 2**-8, unit_roundoff(torch.float16) == 2**-11
    (True, True)
    """
    return torch.finfo(dtype).eps / 2


def sum_bound(terms: int, dtype: torch.dtype) -> float:
    """Error of a sum of products in any order over Σ|term|: γ = n u / (1 − n u) (Higham 2002, section 3.1).

    >>> round(sum_bound(512, torch.float32), 7)
    3.05e-05
    """
    product = terms * unit_roundoff(dtype)
    assert product < 0.5, f"{terms} roundings in {dtype}: nothing is left of the sum"
    return product / (1 - product)


def random_sum_bound(terms: int, dtype: torch.dtype) -> float:
    """Error of a sum y of products t with random signs over max(√Σt², |y|): 6 · u/√3 · √(2 + (n + 1)/2).

    Each of the two factors of a term may be rounded before, and each partial sum after. Given y, the partial sum of k
    terms is k/n · y and a bridge of the mean square k/n · (1 − k/n) · Σt²; over all k that makes n/3 · y² + n/6 · Σt².

    >>> random_sum_bound(500, torch.bfloat16) < 0.22
    True
    """
    return _DEVIATIONS * unit_roundoff(dtype) / math.sqrt(3) * math.sqrt(2 + (terms + 1) / 2)


def assert_within(found: torch.Tensor, exact: torch.Tensor, bound: torch.Tensor | float) -> None:
    """Nowhere further from ``exact`` than ``bound``; what is not a number is infinitely far."""
    assert found.shape == exact.shape
    error = (found.double() - exact.double()).abs()
    within = error <= torch.as_tensor(bound, dtype=torch.float64)
    assert within.all(), f"{int((~within).sum())} numbers are off, by {error[~within].max().item():.3g} at most"


def assert_sums(
    found: torch.Tensor, exact: torch.Tensor, squares: torch.Tensor, terms: int, dtype: torch.dtype = torch.float32
) -> None:
    """``found`` are sums of ``terms`` products each, rounded to ``dtype``; ``squares`` are Σ product² of each."""
    assert_within(found, exact, random_sum_bound(terms, dtype) * torch.maximum(squares.double().sqrt(), exact.abs()))


def winograd_bound(terms: int, *, of_weights: bool = False, dtype: torch.dtype = torch.float32) -> float:
    """Error of Winograd's F(4³, 3³) over √Σ term² of the plain sum, at the place of a tile where it is largest.

    In the domain a result is Σⱼ S[i, j] · (F g)[j] · (A d)[j]. For inputs and weights of variance 1 its products have
    the mean square S² · ΣF² · ΣA², and what that exceeds the 3 of the plain sum by is the gain along an axis, to the
    third power for three. ``of_weights`` is the transposed algorithm: F takes the place of S, and an axis has 4 terms.

    Args:
        terms: added in the domain: input channels, or for the gradient of the weights tiles.
        of_weights: the gradient of the weights.
        dtype: of the sums.

    >>> winograd_bound(32) / random_sum_bound(27 * 32, torch.float32) < 10
    True
    """
    sums = [(matrix**2).sum(axis) for matrix, axis in ((FILTER, 1), (ANALYSIS, 1), (SYNTHESIS, 0))]
    if of_weights:
        gains = (FILTER**2).T @ (sums[1] * sums[2]) / TILE
    else:
        gains = SYNTHESIS**2 @ (sums[0] * sums[1]) / TAPS
    roundings = _TRANSFORMS + (terms + 1) / 2
    return _DEVIATIONS * unit_roundoff(dtype) / math.sqrt(3) * math.sqrt(float(gains.max()) ** 3 * roundings)


def least_cosine(network: nn.Module) -> float:
    """Between two gradients of a network with ReLUs or PReLUs that differ by the rounding of float32.

    An activation's input that rounds to the other side of zero changes the gradient by more than rounding. At a layer
    the share s of these is at most one standard deviation of the error over that of the signal, and there the gradient
    changes by no more than twice its size: by 4 s of its square, which makes 1 − cos = 2 s, for each layer.
    """
    activations = sum(isinstance(module, (nn.ReLU, nn.PReLU)) for module in network.modules())
    return 1 - activations * 2 * network_bound(network) / _DEVIATIONS


def network_bound(network: nn.Module, dtype: torch.dtype = torch.float32) -> float:
    """Error of a network's logits, over the largest of its inputs and logits.

    Each convolution adds the error of its own sums; what earlier ones left it passes on as it passes the signal, whose
    size its weights and norms keep. Errors of different layers are independent: their squares add up.
    """
    squares = 0.0
    for layer in network.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)):
            weight = layer.weight
            bound = random_sum_bound(weight[0].numel(), dtype)
            if dtype == torch.float32 and weight.shape[2:] == (3, 3, 3) and weight.shape[0] >= 16:
                bound = max(bound, winograd_bound(weight.shape[1]))
            squares += bound**2
    return math.sqrt(squares)
