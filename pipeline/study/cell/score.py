"""The whole-volume Dice of a cell, and nothing that costs more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.build import build
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.evaluation.evaluate import evaluate, score_case
from rarevox.pipeline.evaluation.metrics.aggregate import write_results
from rarevox.pipeline.evaluation.run_and_dataset import as_items, same_structures, with_ignored
from rarevox.pipeline.evaluation.scorer import CaseScorer
from rarevox.pipeline.files import read_json
from rarevox.pipeline.inference.segment import Segmenter


def score_light(run: Path, data: Dataset, *, section: str, device: str, trust: bool) -> dict[str, Any]:
    """Score a run on a section by overlap alone, through the code of ``rarevox evaluate``; its result.

    ``metrics.json``, ``cases.csv`` and ``predictions/`` are left in ``RUN/evaluation/SECTION``; a case that fails has
    Dice 0 and its reason.

    Raises:
        RequestError: the run's configuration is more than data, or of other structures.
    """
    segmenter = Segmenter(run, "evaluate", device=device, uncorrected=not data.n4, trust=trust)
    same_structures(segmenter.config, data, run)
    cases = data.section(section, fold=segmenter.config["fold"])
    folder = run / "evaluation" / section
    conventions = with_ignored(build(segmenter.config, "metric_options"), data)
    options = replace(conventions, distances=False, lesions=False)
    scorer = CaseScorer(data.scored, folder, options=options, subjects=data.subjects)
    for case, found in zip(cases, segmenter(as_items(cases)), strict=True):
        score_case(scorer, found, case, folder)
    result = scorer.result()
    write_results(folder, result, extra={"context": {"dataset": data.name, "section": section}})
    return result


def score_fully(run: Path, data: Dataset, *, section: str, device: str, trust: bool) -> dict[str, Any]:
    """The result of ``rarevox evaluate`` with all its figures and its page."""
    evaluate(run, data.path.parent, section=section, device=device, trust=trust)
    result: dict[str, Any] = read_json(run / "evaluation" / section / "metrics.json")
    return result
