"""Scores of predicted label maps against reference files, gathered case by case; also a handler for bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from rarevox.pipeline.evaluation.label_maps import LabelMap, grid_text, known_values, read_label_map
from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.outcome import outcome
from rarevox.pipeline.gates import read_gates
from rarevox.transforms.reader import Scan, ScanError, same_affine


class CaseScorer:
    """Gather rows; write ``metrics.json`` and ``cases.csv`` at the end.

    As a handler of a MONAI evaluator whose postprocessing puts predictions on the native grid, it scores each batch
    and writes when the run completes.

    Args:
        structures: name → label value, or the values whose union it is.
        output: the folder of the results.
        options: the metrics' conventions.
        gates: the least Dice of structures, see :func:`rarevox.pipeline.gates.read_gates`; the results say what was
            reached.
        reference_key: entry of the data that holds the reference's file name.
        subjects: of cases that are not of their own: their rows say so, and intervals are over subjects.
    """

    def __init__(
        self,
        structures: Structures,
        output: str | Path,
        *,
        options: MetricOptions | None = None,
        gates: Mapping[str, Any] | None = None,
        reference_key: str = "reference",
        subjects: Mapping[str, str] | None = None,
    ) -> None:
        self.structures = dict(structures)
        self.output = Path(output)
        self.options = options or MetricOptions()
        self.gates = read_gates(gates, self.structures)
        self.reference_key = reference_key
        self.subjects = dict(subjects or {})
        self.rows: list[dict[str, Any]] = []
        self.raw_rows: list[dict[str, Any]] = []
        self.has_raw = False

    def add(
        self,
        case: str,
        prediction: np.ndarray,
        reference: str | Path,
        raw: np.ndarray | None = None,
        *,
        grid: Scan | None = None,
        warning: str = "",
    ) -> list[dict[str, Any]]:
        """Score one case against its reference file; returns its rows.

        Args:
            case: its name.
            prediction: (X, Y, Z) label values.
            reference: the file.
            raw: the labels before post-processing.
            grid: of the scan; the reference must lie on it.
            warning: what is odd about the scan, for the rows.

        Raises:
            ScanError: the reference cannot be read, is no label map or holds values that no structure has; ValueError:
                it is on another grid.
        """
        labels = self._reference(reference)
        if grid is not None and not (labels.array.shape == grid.shape and same_affine(labels.affine, grid.affine)):
            scan = LabelMap(grid.array[0], grid.affine, grid.spacing_mm)
            raise ValueError(
                f"scan and reference are on different grids: {grid_text(scan)} against {grid_text(labels)}; "
                "correct the geometry, and prepare the dataset again"
            )
        told = [*([warning] if warning else []), *(f"reference: {sentence}" for sentence in labels.warnings)]
        rows = self._rows(case, prediction, labels, told)
        raw_rows = rows
        if raw is not None:
            self.has_raw = True
            raw_rows = self._rows(case, raw, labels, told)
        self.rows.extend(rows)
        self.raw_rows.extend(raw_rows)
        return rows

    def fail(self, case: str, reason: str, reference: str | Path | None = None) -> list[dict[str, Any]]:
        """Count a case that gave no prediction; its rows."""
        known: dict[str, Any] = {}
        try:
            if reference is not None:
                labels = self._reference(reference)
                known = {"reference": labels.array, "spacing_mm": labels.spacing_mm}
        except ScanError:
            known = {}
        rows = self._owned(case, failed_rows(case, self.structures, reason, options=self.options, **known))
        self.rows.extend(rows)
        self.raw_rows.extend(rows)
        return rows

    def _reference(self, path: str | Path) -> LabelMap:
        """A label map of no other values than the structures' and that of what nobody annotated."""
        ignored = set() if self.options.ignored_value is None else {self.options.ignored_value}
        known = known_values(self.structures) | ignored
        return read_label_map(Path(path), known, "correct it, and prepare the dataset again")

    def _rows(self, case: str, prediction: np.ndarray, labels: LabelMap, told: Sequence[str]) -> list[dict[str, Any]]:
        """The rows, and in each what is odd about the case's files."""
        rows = case_rows(case, prediction, labels.array, labels.spacing_mm, self.structures, options=self.options)
        rows = self._owned(case, rows)
        return [{**row, "warning": "; ".join(told)} for row in rows] if told else rows

    def _owned(self, case: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with the case's subject, where one is known."""
        subject = self.subjects.get(case)
        return [{**row, "subject": subject} for row in rows] if subject else rows

    def result(self) -> dict[str, Any]:
        """The aggregate of all rows so far, the gates, and where there is post-processing the figures without it."""
        raw = self.raw_rows if self.has_raw else None
        return outcome(self.rows, self.structures, options=self.options, raw_rows=raw, gates=self.gates)

    def attach(self, engine: Engine) -> None:
        """Follow a MONAI evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score_batch)
        engine.add_event_handler(Events.COMPLETED, lambda _: write_results(self.output, self.result()))

    def _score_batch(self, engine: Engine) -> None:
        for data, output in zip(engine.state.batch, engine.state.output, strict=True):
            raw = np.asarray(output["raw"])[0] if "raw" in output else None
            self.add(str(data["case"]), np.asarray(output["pred"])[0], data[self.reference_key], raw)
