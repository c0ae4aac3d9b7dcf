"""Temperature scaling fitted on validation cases: ``rarevox calibrate RUN DATASET``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.compose import read_yaml, write_yaml
from rarevox.pipeline.console import Console, console, progress_bar
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.beginning import tell_choice_replaced, told_if_seen
from rarevox.pipeline.evaluation.calibration.measure import NEAR_MM, read_reference
from rarevox.pipeline.evaluation.calibration.temperature import (
    BOUNDS,
    VOXELS,
    Sample,
    VoxelSample,
    fit_temperature,
    join,
    negative_log_likelihood,
    sample_calibration,
)
from rarevox.pipeline.evaluation.metrics.aggregate import versions
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, foreground
from rarevox.pipeline.evaluation.run_and_dataset import (
    as_items,
    require_validation,
    same_structures,
    tell_correction,
)
from rarevox.pipeline.figures import figure
from rarevox.pipeline.files import write_json
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.trust.sums import keeping_sums
from rarevox.pipeline.words import counted
from rarevox.transforms.decision import at_temperature

RESULT_FILE = "calibration.json"
STAGES = ("train", "evaluate", "inference")


def calibrate(
    run: str | Path, dataset: str | Path, *, device: str = "auto", voxels: int = VOXELS, trust: bool = False
) -> int:
    """Fit the temperature of a run's probabilities on the validation cases, and store it in the run.

    The temperature with the lowest negative log-likelihood over a sample of voxels goes into the run's configurations
    (``temperature``), replacing an earlier one, and with the errors before and after into
    ``RUN/evaluation/calibration.json``. Labels do not change. The test section is never looked at.

    Args:
        run: the run folder.
        dataset: folder that ``rarevox prepare`` wrote; its validation section of the run's fold is used.
        device: auto, cpu, cuda or cuda:i.
        trust: take the run's configuration whatever it builds; see :mod:`rarevox.pipeline.trust.gate`.
        voxels: drawn from each case; see :class:`rarevox.pipeline.evaluation.calibration.temperature.VoxelSample`.

    Returns:
        0, or 1 where some validation cases could not be used; they are listed, and the rest decides.

    Raises:
        RequestError: no run, no dataset, other structures, no usable validation case, or a likelihood that has no
            maximum between 0.05 and 20.
    """
    run, data = require_run(run, "evaluate"), Dataset.load(dataset)
    how: dict[str, Any] = {"device": device, "trust": trust}
    segmenter = Segmenter(run, "evaluate", settings=["post_processing={}"], uncorrected=not data.n4, **how)
    same_structures(segmenter.config, data, run)
    tell_correction(segmenter, data)
    if not hasattr(segmenter.inferer, "temperature"):
        raise RequestError(
            f"the inferer of {run} knows no temperature; calibrate runs with rarevox.pipeline.inference.DenseInferer"
        )
    segmenter.inferer.temperature = 1.0
    fold = require_validation(run, segmenter.config)
    cases = data.section("validation", fold=fold)
    seen = told_if_seen([run], run, data, "validation", cases)
    tell_choice_replaced([run], "temperature")
    samples, failed = _draw(segmenter, data, cases, voxels)
    for case, reason in failed.items():
        console.say("[red]failed[/red] {}: {}", case, reason)
    if not any(len(sample.classes) for sample in samples):
        raise RequestError(f"no validation case of {data.path} could be used to fit a temperature")
    result = fit(join(samples), data.scored, segmenter.config["label_values"])
    _store(run, result["temperature"])
    made = {"section": "validation", "fold": fold, "fingerprint": data.fingerprint}
    made |= {"learnt_from": seen} if seen else {}
    drawn = {"n_cases": len(samples), "voxels_per_case": voxels, "near_mm": NEAR_MM, "failed": failed}
    file = run / "evaluation" / RESULT_FILE
    write_json(file, result | drawn | {"context": made, "versions": versions()})
    _print(result, len(samples))
    console.print(f"written into the run's configurations; the figures are in {file}")
    return 1 if failed else 0


def fit(sample: Sample, structures: Mapping[str, Any], label_values: Sequence[int]) -> dict[str, Any]:
    """The temperature and what it does to the sampled voxels.

    Args:
        sample: of all cases.
        structures: name → label value, or the values whose union it is.
        label_values: the label value of each class.

    Returns:
        ``temperature``, ``nll`` and for each structure ``ece``, ``mce``, ``brier``, each ``before`` and ``after``;
        ``n_voxels``.

    Raises:
        RequestError: the best temperature is a bound.
    """
    temperature = round(fit_temperature(sample), 6)
    reached = negative_log_likelihood(sample, temperature)
    if any(negative_log_likelihood(sample, bound) <= reached + 1e-9 for bound in BOUNDS):
        raise RequestError(
            f"no temperature between {BOUNDS[0]} and {BOUNDS[1]} fits best: the validation voxels are told apart "
            "without any error, or not at all; nothing was changed"
        )
    order = {value: index for index, value in enumerate(label_values)}
    classes = [[order[v] for v in values] for values in foreground(structures, MetricOptions()).values()]
    before, after = (sample_calibration(sample, classes, t) for t in (1.0, temperature))
    return {
        "temperature": temperature,
        "nll": {
            "before": negative_log_likelihood(sample, 1.0),
            "after": reached,
        },
        "structures": {name: {"before": b, "after": a} for name, b, a in zip(structures, before, after, strict=True)},
        "n_voxels": len(sample.classes),
    }


def _draw(
    segmenter: Segmenter, data: Dataset, cases: Sequence[dict[str, Any]], voxels: int
) -> tuple[list[Sample], dict[str, str]]:
    """A sample of each case, and why others failed."""

    def watch(item: Mapping[str, Any]) -> VoxelSample:
        labels, spacing_mm = read_reference(item["reference"])
        nested, values = bool(segmenter.config.get("regions")), segmenter.config["label_values"]
        return VoxelSample(values, labels, spacing_mm, voxels=voxels, ignored=data.ignored, nested=nested)

    samples, failed = [], {}
    with progress_bar() as bar:
        task = bar.add_task("segmenting", total=len(cases))
        for found in segmenter(as_items(cases), watch):
            if found.labels is None:
                failed[found.case] = found.reason
            else:
                samples.append(found.watch.sample())
            bar.advance(task)
    return samples, failed


def _store(run: Path, temperature: float) -> None:
    """The temperature in every configuration of the run, also where its inferer has had one of its own.

    Operating points move with it, so that no label changes.
    """
    with keeping_sums(run) as texts:
        for stage in STAGES:
            file = f"configs/{stage}.yaml"
            config = read_yaml(run / file)
            config["inferer"] = dict(config["inferer"]) | {"temperature": "@temperature"}
            points = config.get("operating_points") or {}
            if points:
                before = float(config.get("temperature", 1.0))
                config["operating_points"] = at_temperature(points, before, temperature)
            texts[file] = write_yaml(config | {"temperature": temperature})


def _print(result: Mapping[str, Any], n_cases: int) -> None:
    out = Console()
    nll = result["nll"]
    out.print(
        f"temperature {result['temperature']:.3f}: negative log-likelihood {nll['before']:.4f} to {nll['after']:.4f} "
        f"over {result['n_voxels']} voxels of {counted(n_cases, 'validation case')}"
    )
    for name, s in result["structures"].items():
        before, after = figure(s["before"]["ece"], 4), figure(s["after"]["ece"], 4)
        out.print(f"  {name}: expected calibration error {before} to {after}")
