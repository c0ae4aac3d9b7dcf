"""Lines of equal Dice lie where a known surface has the value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from rarevox.pipeline.study.results.isolines import Surface, isolines, surface_of
from rarevox.pipeline.study.results.outcomes import Outcome

RATES = np.array([-5.0, -4.0, -3.0])
PATCHES = np.array([15.0, 27.0, 49.0])
EPS = np.finfo(float).eps


def surface(dice: np.ndarray) -> Surface:
    return Surface(RATES, PATCHES, dice, np.zeros(dice.shape, bool))


def plane(rate: float, patch: float, at: float = 0.5) -> Surface:
    """A surface that is linear in both: its line of any value is one straight line."""
    x, y = np.meshgrid(RATES, PATCHES)
    return surface(at + rate * (x + 4) + patch * (y - 27))


@pytest.mark.parametrize(("rate", "patch"), [(0.3, 0.01), (-0.2, 0.005), (0.05, -0.012), (0.4, 0.0), (0.0, 0.02)])
@pytest.mark.parametrize("level", [0.4, 0.47, 0.55])
def test_lines_of_a_plane_are_straight_and_where_the_plane_has_the_value(
    rate: float, patch: float, level: float
) -> None:
    lines = isolines(plane(rate, patch), level)
    assert lines
    # A point of an edge is x₀ + t (x₁ − x₀) with t from a quotient of differences of Dice: some ten roundings of
    # numbers up to 49, each multiplied by a slope up to 0.4, over a difference that a slope gives back.
    bound = 10 * EPS * 49
    for x, y in np.concatenate(lines):
        assert abs(0.5 + rate * (x + 4) + patch * (y - 27) - level) <= bound
        assert RATES[0] <= x <= RATES[-1] and PATCHES[0] <= y <= PATCHES[-1]


def test_the_line_of_a_plane_runs_from_edge_to_edge() -> None:
    (line,) = isolines(plane(0.3, 0.0), 0.5)
    assert np.allclose(line[:, 0], -4, atol=10 * EPS * 5, rtol=0)
    assert {line[0, 1], line[-1, 1]} == {15.0, 49.0}


def test_every_crossing_of_the_grid_is_interpolated_linearly() -> None:
    """On an edge of the grid SciPy's bilinear interpolation is the linear one between its two ends."""
    dice = np.random.default_rng(3).uniform(0, 1, (3, 3))
    between = RegularGridInterpolator((PATCHES, RATES), dice)
    points = np.concatenate([p for level in (0.2, 0.35, 0.5, 0.65, 0.8) for p in isolines(surface(dice), level)])
    values = np.concatenate(
        [np.full(len(p), level) for level in (0.2, 0.35, 0.5, 0.65, 0.8) for p in isolines(surface(dice), level)]
    )
    on_edge = np.isin(points[:, 0], RATES) | np.isin(points[:, 1], PATCHES)
    assert on_edge.sum() > 20
    steepest = 1 / 12  # Dice a voxel at most, along a patch's edge; positions are rounded to 49 · 2⁻⁵²
    bound = 20 * EPS * max(1.0, 49 * steepest)
    assert np.abs(between(points[on_edge][:, ::-1]) - values[on_edge]).max() <= bound


def test_a_missing_cell_takes_its_corner_and_no_more() -> None:
    whole = plane(0.3, 0.0)
    dice = whole.dice.copy()
    dice[2, 2] = np.nan
    (line,) = isolines(surface(dice), 0.5)
    assert len(isolines(whole, 0.5)) == 1
    assert line[:, 1].max() == 49.0  # the column at 1e-4 is whole
    assert not isolines(surface(dice), 0.79) or max(p[:, 1].max() for p in isolines(surface(dice), 0.79)) < 49.0


def test_a_surface_without_the_value_has_no_line() -> None:
    assert isolines(plane(0.01, 0.0), 0.9) == []


def cell(patch: str, rate: str, dice: float, size: float, **more: object) -> Outcome:
    return Outcome("c", {"patch": patch, "lr": rate}, state="done", dice=dice, patch=size, **more)  # type: ignore[arg-type]


def test_the_grid_is_in_the_order_of_sizes_and_rates_whatever_the_labels_order() -> None:
    cells = [
        cell("L", "1e-3", 0.4, 49),
        cell("S", "1e-3", 0.3, 15),
        cell("L", "1e-5", 0.2, 49),
        cell("S", "1e-5", 0.1, 15),
    ]
    found = surface_of(cells, ["L", "S"], ["1e-3", "1e-5"])
    assert found.dice.tolist() == [[0.1, 0.3], [0.2, 0.4]]
    assert found.patches.tolist() == [15.0, 49.0]
    assert found.log_rates.tolist() == [-5.0, -3.0]


def test_seeds_count_by_their_mean_and_a_failed_cell_is_marked() -> None:
    failed = Outcome("f", {"patch": "S", "lr": "1e-3"}, state="failed")
    cells = [cell("S", "1e-5", 0.25, 15), cell("S", "1e-5", 0.75, 15), failed]
    found = surface_of(cells, ["S", "L"], ["1e-5", "1e-3"])
    assert found.dice[0, 0] == 0.5
    assert np.isnan(found.dice[0, 1])
    assert found.failed.tolist() == [[False, True]]
    assert not found.drawable
