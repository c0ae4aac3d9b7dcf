"""Figure 4: one held-out case segmented after each loss, the reference beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from rarevox.pipeline.evaluation.report.planes import LETTERS, canonical
from rarevox.pipeline.pictures import OKABE_ITO, window
from rarevox.pipeline.study.results.drawing import Drawn, drawn, shown
from rarevox.pipeline.study.results.outcomes import Outcome, Results, value_of
from rarevox.pipeline.study.results.paper import shown_loss, shown_network
from rarevox.transforms.bounding_box import bounding_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLE, IMAGE, REFERENCE, PREDICTION = "example", "image.nii.gz", "reference.nii.gz", "example_seg.nii.gz"
"""``STUDY/example/image.nii.gz`` and ``reference.nii.gz``, and ``STUDY/cells/CELL/example_seg.nii.gz``."""
REFERENCE_COLOUR, PREDICTION_COLOUR = OKABE_ITO[5], OKABE_ITO[1]
ABSENT = "The study kept no segmentation of a held-out case: give it `record: {example: true}`."


@dataclass(frozen=True)
class Example:
    """One slice: the scan, the reference, and the segmentation after each loss, all (X, Y) in RAS+."""

    image: np.ndarray
    reference: np.ndarray
    predictions: Mapping[str, np.ndarray]
    spacing_mm: tuple[float, float]
    where: str


def example_figure(study: Path, results: Results, network: str, folder: Path, name: str) -> Drawn | None:
    """Draw the case after each loss of one network, at the largest patch and the middle learning rate as the paper.

    Where that setting kept nothing, the one that kept it for the most losses is drawn. None where nothing was kept.
    """
    chosen = chosen_setting(study, results, network)
    if not chosen or not (study / EXAMPLE / REFERENCE).is_file() or not (study / EXAMPLE / IMAGE).is_file():
        return None
    return draw_example(load_example(study, chosen), f"{shown_network(network)}", folder, name)


def chosen_setting(study: Path, results: Results, network: str) -> dict[str, Outcome]:
    """Loss → cell that kept a segmentation, of one setting; empty without any."""
    kept: dict[tuple[tuple[str, str], ...], dict[str, Outcome]] = {}
    for one in results.where(network=network):
        if (study / "cells" / one.cell / PREDICTION).is_file():
            key = tuple((role, label) for role, label in one.labels.items() if role != "loss")
            kept.setdefault(key, {})[one.label("loss")] = one
    rates = sorted(results.labels("lr"), key=value_of)
    wanted = (results.labels("patch")[-1], rates[len(rates) // 2])

    def score(item: tuple[tuple[tuple[str, str], ...], dict[str, Outcome]]) -> tuple[int, bool]:
        labels = dict(item[0])
        return len(item[1]), (labels.get("patch", ""), labels.get("lr", "")) == wanted

    return max(kept.items(), key=score)[1] if kept else {}


def load_example(study: Path, chosen: Mapping[str, Outcome]) -> Example:
    """The axial slice with the most of the reference, cut to the head.

    Args:
        study: its folder.
        chosen: loss → cell.
    """
    file = nib.load(study / EXAMPLE / REFERENCE)
    spacing = tuple(float(s) for s in file.header.get_zooms()[:3])
    whole = np.asarray(file.dataobj) > 0
    scan = np.asarray(nib.load(study / EXAMPLE / IMAGE).dataobj, np.float32)
    image, _, reference, spacing = canonical(scan, None, whole, spacing, file.affine)
    assert image is not None
    predictions = {}
    for loss, one in chosen.items():
        labels = np.asarray(nib.load(study / "cells" / one.cell / PREDICTION).dataobj) > 0
        predictions[loss] = canonical(None, None, labels, file.header.get_zooms()[:3], file.affine)[2]
    at = int(np.argmax(reference.sum(axis=(0, 1))))
    head = bounding_box(np.logical_or.reduce([image != image.flat[0], reference, *predictions.values()]))
    x, y = (head[0], head[1]) if head else (slice(None), slice(None))
    one = next(iter(chosen.values()))
    where = ", ".join(
        f"{role} {label}" for role, label in one.labels.items() if role in ("patch", "lr", "imbalance") and label
    )
    cut = {loss: labels[x, y, at] for loss, labels in predictions.items()}
    return Example(image[x, y, at], reference[x, y, at], cut, (spacing[0], spacing[1]), where)


def draw_example(example: Example, network: str, folder: Path, name: str) -> Drawn:
    """The scan, the reference, and the segmentation after each loss with the reference's outline."""
    from matplotlib.figure import Figure

    count = 2 + len(example.predictions)
    across = min(count, 6)
    down = -(-count // across)
    height = example.image.shape[1] * example.spacing_mm[1] / (example.image.shape[0] * example.spacing_mm[0])
    picture = Figure(figsize=(2.0 * across, (2.0 * height + 0.3) * down), layout="constrained")
    panels = picture.subplots(down, across, squeeze=False)
    for ax in panels.flat:
        ax.axis("off")
    scan, reference, *rest = panels.flat
    _slice(scan, example)
    scan.set_title("scan", fontsize=10)
    for letter, x, side in ((LETTERS[2][0], 0.01, "left"), (LETTERS[2][1], 0.99, "right")):
        scan.text(x, 0.5, letter, transform=scan.transAxes, color="white", fontsize=8, ha=side, va="center")
    _slice(reference, example)
    _fill(reference, example, example.reference, REFERENCE_COLOUR)
    reference.set_title("reference", fontsize=10)
    for ax, (loss, labels) in zip(rest, example.predictions.items(), strict=False):
        _slice(ax, example)
        _fill(ax, example, labels, PREDICTION_COLOUR)
        if example.reference.any():
            ax.contour(_turned(example.reference), levels=[0.5], colors=REFERENCE_COLOUR, linewidths=0.8)
        ax.set_title(f"{shown(shown_loss(loss))}  {dice_of(labels, example.reference):.2f}", fontsize=10)
    caption = f"{network}, {example.where}" if example.where else network
    said = f"A held-out case in one axial slice, {caption}; Dice in this slice: " + ", ".join(
        f"{shown_loss(loss)} {dice_of(labels, example.reference):.2f}" for loss, labels in example.predictions.items()
    )
    return drawn(picture, folder, name, caption, f"{said}.")


def dice_of(labels: np.ndarray, reference: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|); 1 where both are empty.

    >>> dice_of(np.array([1, 1, 0], bool), np.array([0, 1, 0], bool))
    0.6666666666666666
    """
    total = int(labels.sum()) + int(reference.sum())
    return 2 * int((labels & reference).sum()) / total if total else 1.0


def _turned(plane: np.ndarray) -> np.ndarray:
    """As radiology looks at it: rows from the front down, the patient's right on the left."""
    return np.asarray(plane[::-1, ::-1].T)


def _slice(ax: Axes, example: Example) -> None:
    low, high = window(example.image)
    aspect = example.spacing_mm[1] / example.spacing_mm[0]
    ax.imshow(_turned(example.image), cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")


def _fill(ax: Axes, example: Example, mask: np.ndarray, colour: str) -> None:
    from matplotlib.colors import to_rgb

    painted = np.zeros((*_turned(mask).shape, 4))
    painted[..., :3], painted[..., 3] = to_rgb(colour), 0.75 * _turned(mask)
    ax.imshow(painted, aspect=example.spacing_mm[1] / example.spacing_mm[0], interpolation="nearest")
