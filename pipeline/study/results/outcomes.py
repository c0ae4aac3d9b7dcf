"""The cells of a study as its report sees them: which axis is which, and what each cell came to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES: Mapping[str, tuple[str, ...]] = {
    "network": ("network", "networks"),
    "patch": ("patch", "patches", "patch_size"),
    "loss": ("loss", "losses"),
    "lr": ("lr", "learning_rate", "rate", "optimizer#lr"),
    "imbalance": ("imbalance", "lesion_share"),
    "seed": ("seed", "seeds"),
}
"""What the report asks of an axis, and the names by which it is found; a study's ``layout`` may name others."""

DIVERGED = "were not finite in"
"""In the reason of a cell whose loss or gradients stayed infinite; see `rarevox.pipeline.training.steps.step`."""


@dataclass(frozen=True)
class Outcome:
    """One cell. Figures that it does not have are NaN.

    Attributes:
        cell: its name.
        labels: role (or the axis's own name where it plays none) → label.
        state: ``done``, ``failed``, or ``pending`` where nothing is there yet.
        reason: of a failure.
        dice: median of the training Dice over the last iterations, with ``q1`` and ``q3``.
        share: median foreground share of the patches drawn.
        patch: edge of the effective patch in voxels, the mean over its axes that are longer than 1.
        batch: patches in a batch.
        test: mean Dice of the held-out cases.
        constant: median Dice that marking every voxel would have had on the batches of ``dice``.
        falling: how likely a loss on its plateau would fall so steadily at the end, a p-value.
        test_constant: mean Dice that marking every voxel would have in the held-out cases.
        test_cases: the rows of the held-out cases.
        seconds: what the cell took.
    """

    cell: str
    labels: Mapping[str, str]
    state: str = "pending"
    reason: str = ""
    dice: float = math.nan
    q1: float = math.nan
    q3: float = math.nan
    share: float = math.nan
    patch: float = math.nan
    batch: float = math.nan
    test: float = math.nan
    constant: float = math.nan
    falling: float = math.nan
    test_constant: float = math.nan
    test_cases: tuple[Mapping[str, Any], ...] = ()
    seconds: float = math.nan

    def label(self, role: str) -> str:
        """Its label on the axis of a role; empty where the study has no such axis."""
        return self.labels.get(role, "")

    @property
    def iqr(self) -> float:
        """The interquartile range of the training Dice."""
        return self.q3 - self.q1


@dataclass(frozen=True)
class Results:
    """All cells, planned ones that have not run too, and the axes' labels in their order.

    Attributes:
        axes: role, or own name → labels.
        outcomes: in the order of the plan.
        dataset: what the study trained on.
        last: over how many last iterations the training Dice is summed up.
        iterations: of a cell.
        names: role → the axis's own name.
        versions: of the packages that the first cell ran with.
        scaled: role → label → the paper's label that it stands for, where the study scaled the paper's axes.
    """

    axes: Mapping[str, tuple[str, ...]]
    outcomes: tuple[Outcome, ...]
    dataset: str = ""
    last: int = 200
    iterations: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    scaled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def labels(self, role: str) -> tuple[str, ...]:
        """The labels of a role's axis; ``("",)`` where there is none, so that loops run once."""
        return self.axes.get(role, ("",))

    def where(self, **labels: str) -> list[Outcome]:
        """The cells with these labels, by role.

        >>> results = Results({"loss": ("a", "b")}, (Outcome("1", {"loss": "a"}), Outcome("2", {"loss": "b"})))
        >>> [one.cell for one in results.where(loss="b")]
        ['2']
        """
        return [one for one in self.outcomes if all(one.label(role) == label for role, label in labels.items())]

    def count(self, state: str) -> int:
        """How many cells are ``done``, ``failed`` or ``pending``."""
        return sum(one.state == state for one in self.outcomes)


def results_of(plan: Mapping[str, Any], cells: Iterable[Mapping[str, Any]]) -> Results:
    """What a plan and the cells that are there say.

    Args:
        plan: content of ``plan.json``.
        cells: contents of the ``cell.json`` that there are; those that the plan does not name are left out.
    """
    layout = plan.get("layout") or {}
    roles = roles_of(plan["axes"], layout)
    there = {cell["cell"]: cell for cell in cells}
    outcomes = []
    for planned in plan["cells"]:
        labels = {roles.get(axis, axis): str(label) for axis, label in planned["labels"].items()}
        fixed = {role: str(planned["settings"].get(role) or "") for role in ("network", "loss")}
        outcomes.append(_outcome(planned["cell"], fixed | labels, there.get(planned["cell"])))
    axes = {roles.get(axis, axis): tuple(map(str, labels)) for axis, labels in plan["axes"].items()}
    for role in ("network", "loss"):  # what all cells have in common is an axis of one
        axes.setdefault(role, tuple(dict.fromkeys(one.labels[role] for one in outcomes)))
    return Results(
        axes=axes,
        outcomes=tuple(outcomes),
        dataset=_folder(plan.get("dataset")),
        last=int(plan.get("last") or 200),
        iterations=str(plan.get("iterations") or ""),
        names={role: axis for axis, role in roles.items()},
        scaled=_scaled(layout.get("paper")),
        versions=next((dict(cell["versions"]) for cell in there.values() if cell.get("versions")), {}),
    )


def roles_of(axes: Iterable[str], layout: Mapping[str, str]) -> dict[str, str]:
    """Axis → role, of the axes that play one.

    >>> roles_of(["net", "loss", "optimizer#lr", "width"], {"network": "net"})
    {'net': 'network', 'loss': 'loss', 'optimizer#lr': 'lr'}
    """
    found: dict[str, str] = {}
    for axis in axes:
        for role, names in ROLES.items():
            if axis == layout.get(role) or (role not in layout and axis in names and role not in found.values()):
                found[axis] = role
    return found


def _outcome(name: str, labels: Mapping[str, str], cell: Mapping[str, Any] | None) -> Outcome:
    """A planned cell with what came of it; one whose loss became infinite has the Dice 0 that it trained to."""
    if cell is None:
        return Outcome(name, labels)
    if cell["state"] != "done":
        diverged = bool(cell.get("diverged")) or DIVERGED in str(cell.get("reason"))
        zero = 0.0 if diverged else math.nan
        reason = str(cell.get("reason") or "no reason is known")
        return Outcome(name, labels, "failed", reason, zero, zero, zero, test=zero)
    dice, share, test = cell.get("train_dice") or {}, cell.get("foreground_share") or {}, cell.get("test") or {}
    over = test.get("mean_over") or None  # unions of other structures are in no figure
    return Outcome(
        name,
        labels,
        state="done",
        dice=number(dice.get("median")),
        q1=number(dice.get("q1")),
        q3=number(dice.get("q3")),
        share=number(share.get("median")),
        patch=edge(cell.get("effective_patch") or ()),
        batch=number(cell.get("batch_size")),
        test=number(test.get("mean_dice")),
        constant=number(cell.get("constant_dice")),
        falling=number(cell.get("falling")),
        test_constant=number(test.get("constant_dice")),
        test_cases=tuple(one for one in test.get("cases") or () if over is None or one.get("structure") in over),
        seconds=_total(cell.get("seconds")),
    )


def edge(shape: Sequence[float]) -> float:
    """The edge of a patch, the mean over the axes that are longer than 1: slices have one of 1.

    >>> edge([48, 48, 1]), edge([3, 3, 3]), edge([])
    (48.0, 3.0, nan)
    """
    long = [float(n) for n in shape if n > 1] or [float(n) for n in shape]
    return sum(long) / len(long) if long else math.nan


def number(value: object) -> float:
    """A figure of a JSON file; NaN where there is none.

    >>> number(None), number("0.5")
    (nan, 0.5)
    """
    try:
        return math.nan if value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def value_of(label: str) -> float:
    """The number that a label of an axis stands for: a learning rate, an imbalance.

    >>> value_of("1e-4"), value_of("1:1000"), value_of("lr=0.01"), value_of("1 : 100 000"), value_of("small")
    (0.0001, 0.001, 0.01, 1e-05, nan)
    """
    text = label.replace(" ", "").rpartition("=")[2]
    ratio = re.fullmatch(r"([\d.]+):([\d.]+)", text)
    if ratio:
        return number(ratio[1]) / number(ratio[2]) if number(ratio[2]) else math.nan
    return number(text)


def _scaled(hint: object) -> dict[str, dict[str, str]]:
    """The hint ``layout: {paper: {lr: {5e-5: 1e-5}}}``; whatever has another form says nothing."""
    roles = hint.items() if isinstance(hint, Mapping) else ()
    return {
        str(role): {str(label): str(theirs) for label, theirs in labels.items()}
        for role, labels in roles
        if isinstance(labels, Mapping)
    }


def _folder(dataset: object) -> str:
    return str(dataset.get("folder", "")) if isinstance(dataset, Mapping) else str(dataset or "")


def _total(seconds: object) -> float:
    """Of a cell's times: their total where it is stated, else their sum."""
    if isinstance(seconds, Mapping):
        return number(seconds["total"]) if "total" in seconds else sum(map(number, seconds.values()))
    return number(seconds)
