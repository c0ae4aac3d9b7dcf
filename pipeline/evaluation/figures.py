"""Pictures of a result: overlays with true voxel proportions, distributions, learning curves; as base64 PNG.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; the reference is a solid blue line and
the prediction a dashed orange one, so that the two also differ without colour.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.planes import Plane, canonical, focus, label_mask, plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
REFERENCE, PREDICTION = "#56B4E9", "#E69F00"
_FINE = 4  # outlines follow the voxels' edges: masks are drawn this much finer than their voxels


def overlay_figure(
    image: np.ndarray | None,
    prediction: np.ndarray | None,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    structures: Mapping[str, Any],
    title: str,
    *,
    affine: np.ndarray | None = None,
) -> str:
    """Three planes through a case, reference and prediction as outlines along the voxels' edges.

    Each plane is the slice with the most disagreement (with the most reference if there is none), cut to the structures
    and 15 mm around them; voxels keep their proportions.

    Args:
        image: (X, Y, Z) intensities, or None for a plain ground.
        prediction: (X, Y, Z) labels, or None if there is none.
        reference: (X, Y, Z) labels.
        spacing_mm: voxel edge lengths.
        structures: name → value or values, whose outlines are drawn.
        title: the line above.
        affine: 4×4, turns the arrays to RAS+ first; without it they are taken to be RAS+.

    Returns:
        The PNG, base64.
    """
    from matplotlib.lines import Line2D

    image, prediction, reference, spacing = canonical(image, prediction, reference, spacing_mm, affine)
    box, centre = focus(prediction, reference, spacing, structures)
    planes = [plane(axis, centre[axis], box, spacing) for axis in (2, 1, 0)]
    figure = _figure(9.6, 3.9)
    axes = figure.subplots(1, 3, width_ratios=[max(p.width_mm, 0.4 * p.height_mm) for p in planes])
    levels = window(image) if image is not None else (0.0, 1.0)
    for ax, one in zip(axes, planes, strict=True):
        _draw_plane(ax, one, levels, image, prediction, reference, structures)
    handles = [Line2D([], [], color=REFERENCE, linewidth=2.4, label="reference")]
    handles.append(Line2D([], [], color=PREDICTION, linewidth=1.6, linestyle=(0, (4, 3)), label="prediction"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return png(figure)


def distribution_figure(result: Mapping[str, Any], column: str = "dice", label: str = "Dice") -> str | None:
    """Per structure every case as a point, over a box from the lower to the upper quartile with the median in it.

    None if there is nothing to draw.
    """
    values = {name: _finite(result["cases"], name, column) for name in result["structures"]}
    values = {name: drawn for name, drawn in values.items() if len(drawn)}
    if not values:
        return None
    figure = _figure(6.4, 0.9 + 0.55 * len(values))
    ax, rng = figure.subplots(), np.random.default_rng(0)
    for row, (name, drawn) in enumerate(values.items()):
        colour = OKABE_ITO[row % len(OKABE_ITO)]
        q25, median, q75 = np.percentile(drawn, [25, 50, 75])
        ax.barh(row, q75 - q25, left=q25, height=0.55, facecolor="none", edgecolor="#333333")
        ax.plot([median, median], [row - 0.275, row + 0.275], color="#333333", linewidth=2.0)
        ax.scatter(drawn, row + rng.uniform(-0.18, 0.18, len(drawn)), s=14, color=colour, alpha=0.65, label=name)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    ax.set_xlabel(label)
    if column.endswith("_mm"):
        ax.set_xlim(left=0)
    _plain(ax)
    return png(figure)


def curves_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Loss over iterations, and the validation Dice of each structure; None without any record.

    Args:
        curves: ``train``: records with ``iteration`` and ``loss``; ``validation``: records with ``iteration``, ``dice``
            (structure → figure) and ``mean_dice``.
    """
    train, validation = curves.get("train") or [], curves.get("validation") or []
    panels = [part for part in (train, validation) if part]
    if not panels:
        return None
    figure = _figure(8.8 if len(panels) == 2 else 5.2, 3.1)
    axes = list(np.atleast_1d(figure.subplots(1, len(panels))))
    if train:
        ax = axes.pop(0)
        steps, loss = (np.array([record[key] for record in train], float) for key in ("iteration", "loss"))
        ax.plot(steps, loss, color=OKABE_ITO[0], linewidth=0.7, alpha=0.35)
        ax.plot(steps, _smooth(loss), color=OKABE_ITO[0], linewidth=1.6)
        ax.set(xlabel="iteration", ylabel="loss (line: running mean)")
        _plain(ax)
    if validation:
        _draw_validation(axes.pop(0), validation)
    return png(figure)


def png(figure: Figure) -> str:
    """A figure as a base64 PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def window(image: np.ndarray) -> tuple[float, float]:
    """The intensities that become black and white: the 0.5th and 99.5th percentile of what is not background.

    The background is 0, and the value of the first voxel, since normalised scans have another constant around the head.

    >>> window(np.zeros((2, 2, 2)))
    (0.0, 1.0)
    """
    values = image[np.isfinite(image) & (image != 0) & (image != image.flat[0])]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(q) for q in np.percentile(values[:: max(1, values.size // 200_000)], [0.5, 99.5]))
    return (low, high) if high > low else (low - 1.0, low + 1.0)


def _draw_plane(
    ax: Axes,
    one: Plane,
    levels: tuple[float, float],
    image: np.ndarray | None,
    prediction: np.ndarray | None,
    reference: np.ndarray,
    structures: Mapping[str, Any],
) -> None:
    extent = (0.0, one.width_mm, 0.0, one.height_mm)
    ground = np.zeros_like(one.cut(reference), float) if image is None else one.cut(image)
    ax.imshow(
        ground.T, origin="lower", cmap="gray", vmin=levels[0], vmax=levels[1], extent=extent, interpolation="nearest"
    )
    for values in structures.values():
        if values == 0:
            continue
        _outline(ax, label_mask(one.cut(reference), values), extent, REFERENCE, 2.4, "solid")
        if prediction is not None:
            _outline(ax, label_mask(one.cut(prediction), values), extent, PREDICTION, 1.5, (0, (4, 3)))
    ax.set_title(f"{one.name}, slice {one.index}", fontsize=9)
    ax.set_axis_off()
    left, right, bottom, top = one.letters
    place: dict[str, Any] = {"transform": ax.transAxes, "color": "white", "fontsize": 8, "ha": "center", "va": "center"}
    for x, y, letter in ((0.04, 0.5, left), (0.96, 0.5, right), (0.5, 0.04, bottom), (0.5, 0.96, top)):
        ax.text(x, y, letter, bbox={"facecolor": "black", "alpha": 0.4, "edgecolor": "none", "pad": 1}, **place)


def _outline(ax: Axes, mask: np.ndarray, extent: tuple[float, ...], colour: str, width: float, style: Any) -> None:
    if not mask.any():
        return
    fine = np.pad(mask, 1).repeat(_FINE, 0).repeat(_FINE, 1).astype(np.float32)
    step = extent[1] / mask.shape[0], extent[3] / mask.shape[1]
    x, y = ((np.arange(size) + 0.5) / _FINE - 1 for size in fine.shape)
    ax.contour(x * step[0], y * step[1], fine.T, levels=[0.5], colors=[colour], linewidths=[width], linestyles=[style])


def _draw_validation(ax: Axes, validation: Sequence[Mapping[str, Any]]) -> None:
    steps = [record["iteration"] for record in validation]
    for number, name in enumerate(validation[-1].get("dice") or {}):
        values = [_or_nan((record.get("dice") or {}).get(name)) for record in validation]
        ax.plot(steps, values, color=OKABE_ITO[number % 7], marker="o", markersize=3, linewidth=1.2, label=name)
    means = [_or_nan(record.get("mean_dice")) for record in validation]
    ax.plot(steps, means, color="black", linewidth=1.6, linestyle=(0, (4, 2)), label="mean")
    ax.set(xlabel="iteration", ylabel="validation Dice", ylim=(0, 1))
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    _plain(ax)


def _figure(width: float, height: float) -> Figure:
    """A figure that belongs to no window system and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(ax: Axes) -> None:
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The running mean over a twentieth of the records before each."""
    span = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - span, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _finite(rows: Sequence[Mapping[str, Any]], name: str, column: str) -> list[float]:
    values = [_or_nan(row.get(column)) for row in rows if row["structure"] == name]
    return [value for value in values if math.isfinite(value)]


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)
