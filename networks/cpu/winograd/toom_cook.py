"""The matrices of Winograd's minimal filtering F(4, 3): four outputs of a three-tap filter for six multiplications.

    y = SYNTHESIS · ((FILTER · g) ⊙ (ANALYSIS · d)),   y[i] = Σⱼ d[i + j] · g[j],   i = 0 … 3, j = 0 … 2

It is polynomial multiplication by evaluation at five finite points and infinity (Toom, Cook), transposed. In three
dimensions each matrix is applied along each axis: 216 multiplications give 4³ outputs of a 3³ filter, where the plain
sum takes 1728.

The points decide the rounding. The usual ones, 0, ±1, ±2, lose a digit and a half in 3D; 0, ±3/4, ±3/2 lose less than
one in float32 (root mean square 1.5e-6 of the result's for 32 channels, where a plain sum in vectors has 2.4e-7).

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016; on the choice of points
Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", ACM TOMS
46(4), 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# A tile is TILE voxels of the output along each axis, made from a WINDOW of the input, and has PLACES in the domain.
TILE, TAPS = 4, 3
WINDOW = TILE + TAPS - 1
PLACES = WINDOW**3
# Pairs ± p, so that rows of the matrices differ in signs alone and share their sums
# (`rarevox.networks.cpu.instructions.matrices`).
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def toom_cook(points: Sequence[float], outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices of F(outputs, taps) for distinct finite points; infinity is the last one.

    Args:
        points: outputs + taps − 2 distinct numbers.
        outputs: outputs of a tile.
        taps: taps of the filter.

    Returns:
        SYNTHESIS (outputs, n), FILTER (n, taps) and ANALYSIS (n, n), n = outputs + taps − 1, in float64.

    Raises:
        ValueError: another number of points, or one twice.

    >>> synthesis, filters, analysis = toom_cook((0, 1, -1), 2, 3)
    >>> d, g = np.array([1.0, 2, 3, 4]), np.array([5.0, 6, 7])
    >>> (synthesis @ ((filters @ g) * (analysis @ d))).tolist(), np.correlate(d, g).tolist()
    ([38.0, 56.0], [38.0, 56.0])
    """
    size = outputs + taps - 1
    if len(set(points)) != size - 1 or len(points) != size - 1:
        raise ValueError(f"F({outputs}, {taps}) takes {size - 1} distinct points, given {tuple(points)}")
    finite = np.asarray(points, float)
    synthesis, filters, analysis = np.zeros((outputs, size)), np.zeros((size, taps)), np.zeros((size, size))
    for i, point in enumerate(finite):
        others = np.delete(finite, i)
        synthesis[:, i] = point ** np.arange(outputs)
        filters[i] = point ** np.arange(taps) / np.prod(point - others)
        analysis[i, :-1] = np.atleast_1d(np.poly(others))[::-1]
    synthesis[-1, -1] = filters[-1, -1] = 1.0
    analysis[-1] = np.poly(finite)[::-1]
    return synthesis, filters, analysis


SYNTHESIS, FILTER, ANALYSIS = toom_cook(POINTS, TILE, TAPS)
