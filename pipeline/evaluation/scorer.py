"""Scores of predicted label maps against reference files, gathered case by case; also a handler for bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.outcome import outcome
from rarevox.pipeline.gates import read_gates
from rarevox.transforms.reader import ScanError, read_scan


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
    """

    def __init__(
        self,
        structures: Structures,
        output: str | Path,
        *,
        options: MetricOptions | None = None,
        gates: Mapping[str, Any] | None = None,
        reference_key: str = "reference",
    ) -> None:
        self.structures = dict(structures)
        self.output = Path(output)
        self.options = options or MetricOptions()
        self.gates = read_gates(gates, self.structures)
        self.reference_key = reference_key
        self.rows: list[dict[str, Any]] = []
        self.raw_rows: list[dict[str, Any]] = []
        self.has_raw = False

    def add(
        self, case: str, prediction: np.ndarray, reference: str | Path, raw: np.ndarray | None = None
    ) -> list[dict[str, Any]]:
        """Score one case against its reference file; returns its rows. ``raw``: the labels before post-processing.

        Raises:
            ScanError: the reference cannot be read; ValueError: it is on another grid.
        """
        scan = read_scan(reference, dtype=None)
        labels = scan.array[0]
        labels = labels if labels.dtype.kind in "iu" else np.rint(labels).astype(np.int32)
        rows = case_rows(case, prediction, labels, scan.spacing_mm, self.structures, options=self.options)
        raw_rows = rows
        if raw is not None:
            self.has_raw = True
            raw_rows = case_rows(case, raw, labels, scan.spacing_mm, self.structures, options=self.options)
        self.rows.extend(rows)
        self.raw_rows.extend(raw_rows)
        return rows

    def fail(self, case: str, reason: str, reference: str | Path | None = None) -> None:
        """Count a case that gave no prediction."""
        known: dict[str, Any] = {}
        try:
            if reference is not None:
                scan = read_scan(reference, dtype=None)
                known = {"reference": np.rint(scan.array[0]).astype(np.int32), "spacing_mm": scan.spacing_mm}
        except ScanError:
            known = {}
        rows = failed_rows(case, self.structures, reason, options=self.options, **known)
        self.rows.extend(rows)
        self.raw_rows.extend(rows)

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
