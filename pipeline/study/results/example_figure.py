"""Figure 4: one held-out case segmented after each loss, the reference beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.report.planes import LETTERS, canonical, label_mask
from rarevox.pipeline.evaluation.report.run import case_images
from rarevox.pipeline.pictures import OKABE_ITO, window
from rarevox.pipeline.study.datasets import place_of
from rarevox.pipeline.study.plan import Plan
from rarevox.pipeline.study.results.detection import SCORED
from rarevox.pipeline.study.results.drawing import Drawn, drawn, shown
from rarevox.pipeline.study.results.outcomes import Outcome, Results, value_of
from rarevox.pipeline.study.results.paper import shown_loss, shown_network
from rarevox.pipeline.study.results.verdict import mean
from rarevox.transforms.bounding_box import bounding_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE_COLOUR, PREDICTION_COLOUR = OKABE_ITO[5], OKABE_ITO[1]
ABSENT = "no segmentation of a held-out case is there, or the dataset has moved."


@dataclass(frozen=True)
class Example:
    """One slice: the scan, the reference, and the segmentation after each loss, all (X, Y) in RAS+."""

    image: np.ndarray
    reference: np.ndarray
    predictions: Mapping[str, np.ndarray]
    spacing_mm: tuple[float, float]
    said: str


def example_figure(
    study: Path, plan: Plan, results: Results, network: str, folder: Path, name: str, *, imbalance: str = ""
) -> Drawn | None:
    """Draw a case after each loss of one network, at the largest patch and the middle learning rate as the paper does.

    Where that setting has no segmentations, the one that has them for the most losses is drawn. The case is the first
    held-out one whose reference holds anything. None where there is no segmentation, or no dataset any more.

    Args:
        study: its folder.
        plan: of the study.
        results: of the study.
        network: label of the network.
        folder: for the SVG and the PDF.
        name: of these files.
        imbalance: label of the imbalance, where that is an axis.
    """
    chosen = chosen_setting(study, results, network, imbalance)
    if not chosen:
        return None
    example = load_example(study, plan, chosen)
    return None if example is None else draw_example(example, shown_network(network), folder, name)


def chosen_setting(study: Path, results: Results, network: str, imbalance: str = "") -> dict[str, Outcome]:
    """Loss → cell with segmentations, all of one setting, in the order of the losses; empty without any.

    The setting is the paper's, where any of its cells has segmentations, else the one that most losses have them in.
    """
    kept: dict[tuple[tuple[str, str], ...], dict[str, Outcome]] = {}
    for one in results.where(network=network):
        if one.label("imbalance") == imbalance and any(
            (study / "cells" / one.cell / SCORED / "predictions").glob("*_seg.nii.gz")
        ):
            key = tuple((role, label) for role, label in one.labels.items() if role != "loss")
            kept.setdefault(key, {})[one.label("loss")] = one
    rates, patches = sorted(results.labels("lr"), key=value_of), results.labels("patch")
    sizes = {label: mean([one.patch for one in results.where(network=network, patch=label)]) for label in patches}
    largest = max(patches, key=lambda label: (np.nan_to_num(sizes[label]), patches.index(label)))
    wanted = (largest, rates[len(rates) // 2])

    def score(labels: Mapping[str, str], count: int) -> tuple[bool, int]:
        return (labels.get("patch", ""), labels.get("lr", "")) == wanted, count

    if not kept:
        return {}
    best = max(kept, key=lambda key: score(dict(key), len(kept[key])))
    return {loss: kept[best][loss] for loss in results.labels("loss") if loss in kept[best]}


def load_example(study: Path, plan: Plan, chosen: Mapping[str, Outcome]) -> Example | None:
    """The axial slice with the most of the reference, cut to the head; None where the scans cannot be read.

    Args:
        study: its folder.
        plan: of the study.
        chosen: loss → cell.
    """
    first = next(iter(chosen.values()))
    settings = next(cell.settings for cell in plan.cells if cell.name == first.cell)
    try:
        data = Dataset.load(place_of(settings, plan.dataset["folder"]))
    except RequestError:
        return None
    values = [data.scored[name] for name in plan.structures or data.scored if name in data.scored]
    for case in data.section("test"):
        found = {k: case_images(case, study / "cells" / one.cell / SCORED, data.ignored) for k, one in chosen.items()}
        example = _slices(found, values, f"{case['case']}, {_setting(first)}".rstrip(", "))
        if example is not None:
            return example
    return None


def _setting(one: Outcome) -> str:
    return ", ".join(f"{role} {label}" for role in ("patch", "lr", "imbalance") if (label := one.label(role)))


def _slices(found: Mapping[str, Any], values: list[Any], said: str) -> Example | None:
    """One slice of a case; None where anything is missing or the reference is empty."""
    images = next(iter(found.values()))
    if images is None or images.image is None or any(one is None or one.prediction is None for one in found.values()):
        return None
    spacing = np.sqrt((np.asarray(images.affine, float)[:3, :3] ** 2).sum(axis=0))
    image, _, reference, spacing = canonical(
        images.image, None, _mask(images.reference, values), spacing, images.affine
    )
    if image is None or not reference.any():
        return None
    whole = {
        loss: canonical(None, None, _mask(one.prediction, values), spacing, images.affine)[2]
        for loss, one in found.items()
    }
    at = int(np.argmax(reference.sum(axis=(0, 1))))
    head = bounding_box(np.logical_or.reduce([image != image.flat[0], reference, *whole.values()]))
    x, y = (head[0], head[1]) if head else (slice(None), slice(None))
    predictions = {loss: labels[x, y, at] for loss, labels in whole.items()}
    return Example(image[x, y, at], reference[x, y, at], predictions, (float(spacing[0]), float(spacing[1])), said)


def _mask(labels: np.ndarray, values: list[Any]) -> np.ndarray:
    """Where any of the structures is."""
    return np.asarray(np.logical_or.reduce([label_mask(labels, value) for value in values]))


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
    caption = f"{network}, {example.said}".lstrip(", ")
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
