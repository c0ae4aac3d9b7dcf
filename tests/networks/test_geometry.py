"""Geometry: sizes that fit and sizes that do not, and the words for the latter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rarevox.networks import DeepMedic, Geometry, HighResNet, geometry_of


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    multiple = draw(st.integers(1, 16))
    return Geometry(
        receptive_field=(draw(st.integers(1, 99)),),
        margin=draw(st.integers(0, 30)),
        multiple=multiple,
        base=draw(st.integers(0, 40)),
        minimum=draw(st.integers(1, 50)),
        preferred_multiple=draw(st.integers(1, 8)),
    )


@given(geometries(), st.integers(1, 200))
def test_input_size_is_the_smallest_that_covers_the_output(geometry: Geometry, n: int) -> None:
    (size,) = geometry.input_size(n)
    assert geometry.accepts(size)
    assert geometry.output_size(size)[0] >= n
    smaller = [k for k in range(1, size) if geometry.accepts(k)]
    assert all(k - 2 * geometry.margin[0] < n for k in smaller)


@given(geometries(), st.integers(1, 300))
def test_nearest_sizes_fit_and_nothing_between_them_does(geometry: Geometry, n: int) -> None:
    (nearest,) = geometry.nearest_sizes(n)
    assert all(geometry.accepts(size) for size in nearest)
    if geometry.accepts(n):
        assert nearest == (n,)
    else:
        low = nearest[0] if nearest[0] < n else 0
        assert not any(geometry.accepts(size) for size in range(low + 1, nearest[-1]))


@given(geometries(), st.integers(1, 200))
def test_accepted_sizes_recur_with_the_multiple_and_give_a_voxel(geometry: Geometry, n: int) -> None:
    if geometry.accepts(n):
        assert geometry.accepts(n + geometry.multiple[0])
        assert geometry.output_size(n)[0] >= 1
        assert not any(geometry.accepts(n + k) for k in range(1, geometry.multiple[0]))


@given(geometries(), st.integers(1, 200))
def test_preferred_size_fits_and_is_preferred_where_one_is(geometry: Geometry, n: int) -> None:
    (size,) = geometry.preferred_size(n)
    assert size >= n
    assert geometry.accepts(size)
    step = geometry.preferred_multiple[0]
    reachable = [k for k in range(n, n + 60 + 20 * 16) if geometry.accepts(k) and k % step == 0]
    assert size == (reachable[0] if reachable else geometry.input_size(max(1, n - 2 * geometry.margin[0]))[0])


def test_check_names_the_size_the_rule_and_the_nearest() -> None:
    geometry = Geometry(receptive_field=(51, 51, 51), margin=24, multiple=3)
    with pytest.raises(
        ValueError, match=r"patch size 51 x 52 x 20 .*multiples of 3.*at least 51.*: 51 x 51 or 54 x 51$"
    ):
        geometry.check((51, 52, 20), what="patch")
    geometry.check((51, 54, 57))


def test_base_is_named_in_the_rule() -> None:
    geometry = Geometry(receptive_field=(85,), margin=40, multiple=15, base=80)
    assert geometry.base == (5,)
    assert geometry.minimum == (95,)  # 5 + 6 · 15 is the first size in step that is at least 2 · 40 + 1 = 81
    with pytest.raises(ValueError, match="multiples of 15 plus 5"):
        geometry.check(90)


def test_numbers_count_for_all_axes_and_lists_axis_by_axis() -> None:
    geometry = Geometry(receptive_field=[9, 9], margin=[0, 2], multiple=1)
    assert geometry.margin == (0, 2)
    assert geometry.multiple == (1, 1)
    assert geometry.output_size((10, 10)) == (10, 6)
    assert geometry == Geometry(receptive_field=(9, 9), margin=(0, 2))


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"receptive_field": 9}, "one value for each of 1 to 3 axes"),
        ({"receptive_field": (9, 9), "margin": (1, 1, 1)}, "one value for each"),
        ({"receptive_field": (9,), "margin": -1}, "margin must be whole numbers of at least 0, got -1"),
        ({"receptive_field": (9,), "multiple": 0}, "multiple must be whole numbers of at least 1"),
        ({"receptive_field": (9.5,)}, "receptive_field must be whole numbers"),
    ],
)
def test_figures_out_of_range_are_refused(figures: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(**figures)


def test_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^input size \(4, 4\) has 2 axes and the network works on 3"):
        Geometry(receptive_field=(1, 1, 1)).output_size((4, 4))
    with pytest.raises(ValueError, match=r"^patch_size \(32, 32\) has 2 axes and the network works on 3; give 3"):
        Geometry(receptive_field=(1, 1, 1)).check((32, 32), "patch_size")


def test_geometry_of_looks_through_wrappers() -> None:
    network = HighResNet(in_channels=1, out_channels=2, spatial_dims=2, width=2)
    assert geometry_of(network) is network.geometry
    assert geometry_of(nn.DataParallel(network)) is network.geometry
    assert geometry_of(torch.compile(network)) is network.geometry


def test_geometry_of_asks_for_a_statement() -> None:
    with pytest.raises(ValueError, match="Conv3d states no geometry; add one to the configuration"):
        geometry_of(nn.Conv3d(1, 1, 3))


def test_deepmedic_states_what_its_layers_do() -> None:
    # Eight 3³ convolutions at a third of the resolution lose 8 · 3 = 24 voxels a face; 17 coarse voxels are 51 fine.
    geometry = DeepMedic(in_channels=1, out_channels=2).geometry
    assert geometry == Geometry(receptive_field=(51,) * 3, margin=24, multiple=3, minimum=51)
