"""What came of the cells of a study: a row each, in ``rows.jsonl`` in the plan's order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import finite
from rarevox.pipeline.plain_data import LARGEST_JSON, parse_json, read_text

ROWS_FILE, CELL_FILE = "rows.jsonl", "cell.json"
NAN = math.nan


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of a figure over iterations or patches; NaN where there was none.

    Attributes:
        median: of the figures that are numbers.
        q1: lower quartile, interpolated linearly as NumPy does.
        q3: upper quartile.
    """

    median: float = NAN
    q1: float = NAN
    q3: float = NAN


@dataclass(frozen=True)
class CaseDice:
    """The Dice of a structure of one held-out case on its own grid.

    Attributes:
        case: its name.
        structure: whose Dice this is.
        dice: NaN where the case counts for nothing; a failed case has 0.
    """

    case: str
    structure: str
    dice: float = NAN


@dataclass(frozen=True)
class HeldOut:
    """Whole-volume Dice on the held-out cases.

    Attributes:
        cases: a figure for each case and structure.
        mean_dice: mean over structures of the mean over cases.
        median_dice: median over all figures.
        mean_over: the structures that both are over; empty for all. Unions of others are in ``cases`` alone.
    """

    cases: tuple[CaseDice, ...] = ()
    mean_dice: float = NAN
    median_dice: float = NAN
    mean_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One cell of a study.

    Everything but ``seconds`` and ``versions`` follows from the plan and the data; see :meth:`same_figures`.

    Attributes:
        cell: its name, that of its folder.
        labels: axis to label.
        state: ``done`` or ``failed``.
        reason: why it failed, in one sentence.
        iterations: steps that were taken.
        train_dice: of the Dice of the training batch (hard, foreground, effective patch) over the last ``last``
            iterations.
        last: how many iterations these are.
        constant_dice: median over the same iterations of the Dice that marking every voxel as the one structure would
            have had; NaN where there are several structures, which no such map marks all.
        foreground_share: of foreground voxels in the effective patches that were drawn.
        effective_patch: voxels that the loss sees, by axis.
        patch_size: voxels of a patch, by axis.
        batch_size: patches of a step.
        test: Dice of held-out cases; None where the study does not ask for it, or the cell failed.
        left_out: cases that could not be read, without which the cell was trained, or validated while it was.
        seconds: wall time of ``start``, ``steps`` and ``evaluation``.
        versions: of the packages.
    """

    cell: str
    labels: Mapping[str, str]
    state: str
    reason: str = ""
    iterations: int = 0
    train_dice: Quartiles = field(default_factory=Quartiles)
    last: int = 200
    constant_dice: float = NAN
    foreground_share: Quartiles = field(default_factory=Quartiles)
    effective_patch: tuple[int, ...] = ()
    patch_size: tuple[int, ...] = ()
    batch_size: int = 0
    test: HeldOut | None = None
    left_out: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the cell has figures."""
        return self.state == "done"

    @property
    def whole(self) -> bool:
        """Whether it has, of a training on all of its cases."""
        return self.done and not self.left_out

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None; :meth:`from_json` gives the row back.

        >>> Row("a", {"lr": "1e-3"}, "failed", "no memory").to_json()["train_dice"]
        {'median': None, 'q1': None, 'q3': None, 'last': 200}
        """
        content = finite(asdict(self))
        content["train_dice"]["last"] = content.pop("last")
        return content  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Row:
        """The row that :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is not of that form.
        """
        known = {one.name for one in fields(cls)}
        given = {key: value for key, value in content.items() if key in known}
        if given["state"] not in ("done", "failed") or not isinstance(given["cell"], str):
            raise ValueError(f"a row's state is {given['state']!r}; expected done or failed")
        test = given.get("test")
        return cls(
            **given
            | {
                "labels": {str(axis): str(label) for axis, label in given["labels"].items()},
                "train_dice": _quartiles(given.get("train_dice") or {}),
                "last": int((given.get("train_dice") or {}).get("last", 200)),
                "constant_dice": _number(given.get("constant_dice")),
                "foreground_share": _quartiles(given.get("foreground_share") or {}),
                "test": None if test is None else _test(test),
                **{key: tuple(map(int, given.get(key) or ())) for key in ("effective_patch", "patch_size")},
                "left_out": tuple(map(str, given.get("left_out") or ())),
            }
        )

    def same_figures(self) -> dict[str, Any]:
        """What two rows of the same cell have alike, however and wherever they were made."""
        return {key: value for key, value in self.to_json().items() if key not in ("seconds", "versions")}


def _number(value: object) -> float:
    return NAN if value is None else float(value)  # type: ignore[arg-type]


def _quartiles(content: Mapping[str, Any]) -> Quartiles:
    return Quartiles(*(_number(content.get(key)) for key in ("median", "q1", "q3")))


def _test(content: Mapping[str, Any]) -> HeldOut:
    cases = tuple(CaseDice(str(one["case"]), str(one["structure"]), _number(one["dice"])) for one in content["cases"])
    means = _number(content.get("mean_dice")), _number(content.get("median_dice"))
    return HeldOut(cases, *means, tuple(map(str, content.get("mean_over") or ())))


def rows_text(rows: Iterable[Row]) -> str:
    """The content of ``rows.jsonl``."""
    return "".join(json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_rows(study: str | Path) -> list[Row]:
    """The rows that a study has collected, in the plan's order.

    Args:
        study: the folder of the study.

    Raises:
        RequestError: no study, nothing collected yet, or a line that is no row.
    """
    file = Path(study) / ROWS_FILE
    if not file.is_file():
        raise RequestError(f"{study} has no {ROWS_FILE}; run `rarevox study FILE DATASET --output {study}`")
    found = []
    for number, line in enumerate(read_text(file, LARGEST_JSON).splitlines(), start=1):
        try:
            found.append(Row.from_json(parse_json(line)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestError(
                f"{file}: line {number} is no row of a study ({error}); run the study again, which collects anew"
            ) from error
    return found
