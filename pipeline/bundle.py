"""A run folder as a MONAI bundle: configurations, metadata, model card, licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import CONFIGS, derive, write_yaml
from rarevox.pipeline.data.dataset import ALL_FOLDS, Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.figures import figure
from rarevox.pipeline.files import read_json, write_json, write_text
from rarevox.pipeline.plain_data import LARGEST_YAML, read_text
from rarevox.pipeline.words import counted, markdown

LICENCE = CONFIGS.parent / "LICENSE"
METADATA, CARD = "configs/metadata.json", "docs/README.md"
SCORES = "## Scores"
STATISTICS_FILE = "models/scan_statistics.pt"
"""Statistics of training scans in the batch norms of the model beside it."""
LEFT_OUT = "logs/left_out.json"
"""Rows of the cases that a training could not read."""
_LEFT, _AFTER_LEFT = "## Left out", "## Training"
_LISTED = 50


def version(package: str) -> str:
    """The installed version of a distribution, ``unknown`` where it is not installed as one."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return "unknown"


def write_bundle(folder: Path, config: Mapping[str, Any], dataset: Dataset) -> None:
    """Write all of a run's bundle but the weights: merged configurations, metadata, card, licence.

    Of a run that is resumed metadata and card are left, since they hold the scores of its model.
    """
    write_text(folder / "configs" / "train.yaml", write_yaml(config))
    for stage in ("evaluate", "inference"):
        write_text(folder / "configs" / f"{stage}.yaml", write_yaml(_for_stage(stage, config, dataset)))
    if config.get("resume") and all((folder / file).is_file() for file in (METADATA, CARD)):
        return
    write_text(folder / "configs" / "logging.conf", (CONFIGS / "logging.conf").read_text(encoding="utf-8"))
    write_json(folder / METADATA, bundle_metadata(config, dataset))
    if LICENCE.is_file():
        write_text(folder / "LICENSE", LICENCE.read_text(encoding="utf-8"))
    write_card(folder, config, dataset)


def _for_stage(stage: str, config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """A stage's configuration; scans are N4-corrected where those of the dataset were, unless they come corrected."""
    derived = derive(stage, config)
    if not (dataset.n4 or derived["n4"]):
        return derived
    evaluated = {"_target_": "rarevox.pipeline.data.is_uncorrected", "dataset": "@dataset_dir"}
    return derived | {"n4": evaluated if stage == "evaluate" else True}


def target_name(component: Any) -> str:
    """The class that a configuration entry builds, without its package.

    >>> target_name({"_target_": "rarevox.networks.HighResNet"})
    'HighResNet'
    """
    target = component.get("_target_", "") if isinstance(component, Mapping) else str(component)
    name = str(target).rsplit(".", 1)[-1]
    return f"{target_name(component['network'])} on slices" if name == "SliceWise" else name


def bundle_metadata(
    config: Mapping[str, Any], dataset: Dataset, scores: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """``metadata.json`` by MONAI's schema, with the data's channels and classes filled in."""
    content: dict[str, Any] = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    names = ["background", *dataset.structures]
    content |= {
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {p: version(p) for p in ("rarevox", "nibabel", "pytorch-ignite")},
        "name": dataset.name,
        "task": f"Segmentation of {', '.join(dataset.structures)}",
        "description": f"{target_name(config['network_def'])} trained on {dataset.name} "
        f"with {target_name(config['loss'])}.",
        "data_source": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        "image_classes": f"channels: {', '.join(dataset.channels)}",
        "label_classes": ", ".join(f"{value} {name}" for name, value in dataset.labels.items()),
        "pred_classes": ", ".join(f"{value} {name}" for name, value in dataset.labels.items()),
        "eval_metrics": dict(scores or {}),
        **({"structure_codes": dataset.structure_codes} if dataset.structure_codes else {}),
    }
    formats = content["network_data_format"]
    count, stated = len(dataset.channels), config.get("in_channels")
    several = stated // count if isinstance(stated, int) else 1  # of each channel, as several CT windows make
    inputs = [f"{name}, {n + 1}" if several > 1 else name for n in range(several) for name in dataset.channels]
    formats["inputs"]["image"] |= {
        "num_channels": len(inputs),
        "spatial_shape": list(config["patch_size"]),
        "channel_def": {str(i): name for i, name in enumerate(inputs)},
    }
    outputs = list(config.get("regions") or names)
    formats["outputs"]["pred"] |= {
        "num_channels": len(outputs),
        "channel_def": {str(i): name for i, name in enumerate(outputs)},
    }
    return content


def write_card(
    folder: Path, config: Mapping[str, Any], dataset: Dataset, result: Mapping[str, Any] | None = None
) -> None:
    """Write ``docs/README.md``, see :func:`card_text`; cases that the run's training left out are told there."""
    write_text(folder / CARD, with_left_out(card_text(config, dataset, result), left_out_of(folder)))


def left_out_of(run: Path) -> list[dict[str, str]]:
    """The rows of the cases that a run's training left out.

    Raises:
        RequestError: the file that tells of them is not what was written.
    """
    if not (run / LEFT_OUT).is_file():
        return []
    content = read_json(run / LEFT_OUT)
    rows = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RequestError(f'{run / LEFT_OUT} has no list "cases"')
    return [{key: str(row.get(key, "")) for key in ("case", "section", "reason")} for row in rows]


def with_left_out(card: str, rows: Sequence[Mapping[str, str]]) -> str:
    """A model card with a table of the cases that could not be read, in place of the one it had; without, for none.

    >>> card = "## Data\\n- 3 cases\\n\\n## Training\\n"
    >>> told = with_left_out(card, [{"case": "a", "section": "train", "reason": "it is truncated"}])
    >>> "| a | train | it is truncated |" in told, with_left_out(told, []) == card
    (True, True)
    """
    head, found, tail = card.partition(f"{_LEFT}\n")
    if found:
        card = head + (_AFTER_LEFT + tail.partition(_AFTER_LEFT)[2])
    head, found, tail = card.partition(f"{_AFTER_LEFT}\n")
    if not rows or not found:
        return card
    lines = [f"{counted(len(rows), 'case')} could not be read, and nothing was learnt or scored of them:", ""]
    lines += ["| case | section | reason |", "|---|---|---|"]
    lines += [
        "| " + " | ".join(markdown(row[key]) for key in ("case", "section", "reason")) + " |" for row in rows[:_LISTED]
    ]
    lines += ["", f"and {len(rows) - _LISTED} more: `{LEFT_OUT}`"] if len(rows) > _LISTED else []
    return head + "\n".join([_LEFT, *lines, "", found]) + tail


def card_text(config: Mapping[str, Any], dataset: Dataset, result: Mapping[str, Any] | None = None) -> str:
    """The model card: what the model is, on what it was trained, what it scored and by which conventions."""
    channels, structures = (markdown(", ".join(names)) for names in (dataset.channels, dataset.structures))
    network, loss = (markdown(target_name(config[key])) for key in ("network_def", "loss"))
    lines = [
        f"# {network} on {markdown(dataset.name)}",
        "",
        f"Segments {structures} from {channels}. Trained with rarevox {version('rarevox')}; "
        "for research, not a medical device. It needs the package rarevox; `rarevox export` writes files that do not. "
        "MONAI's tools execute a bundle's configuration: use them on bundles that you trust; rarevox takes it as data "
        "unless it is told `--trust`, and `rarevox verify RUN` checks its sums.",
        "",
        "## Data",
        f"- {counted(len(dataset.training), 'training case')} ({_validated(config, dataset)}), "
        f"{len(dataset.test)} held out; seed {dataset.seed}; fingerprint `{dataset.fingerprint}`",
        f"- channels in order: {channels}",
        f"- labels: {', '.join(f'{value} = {markdown(name)}' for name, value in dataset.labels.items())}",
        *_region_line(config),
        *([] if dataset.ignored is None else [f"- not annotated, and left out everywhere: label {dataset.ignored}"]),
        "",
        "## Training",
        f"- network {network}, loss {loss}, "
        f"patches {config['patch_size']}, batch {config['batch_size']}, seed {config['seed']}",
        "- everything else: `configs/train.yaml`",
        "",
        "## Use",
        "```",
        "rarevox predict RUN SCANS --output OUT",
        "cd RUN  # SCANS and OUT of the next line lie in it, or are absolute",
        "python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir SCANS --output_dir OUT",
        "```",
        "",
        SCORES,
        *_score_lines(result, dataset.name),
    ]
    return "\n".join(lines) + "\n"


def _validated(config: Mapping[str, Any], dataset: Dataset) -> str:
    return "no validation" if config["fold"] == ALL_FOLDS else f"validation fold {config['fold']} of {dataset.folds}"


def _region_line(config: Mapping[str, Any]) -> list[str]:
    """What a network of nested regions learnt."""
    regions = config.get("regions") or {}
    told = ", ".join(f"{markdown(name)} = {' + '.join(map(str, values))}" for name, values in regions.items())
    return [f"- learnt as nested regions, an output each, the outermost first: {told}"] if regions else []


def forget_scores(folder: Path) -> None:
    """Take the scores of an earlier model out of a run's metadata and card, before another takes its place."""
    if not (folder / METADATA).is_file():
        return
    content = read_json(folder / METADATA)
    if not content.get("eval_metrics"):
        return
    write_json(folder / METADATA, content | {"eval_metrics": {}})
    if (folder / CARD).is_file():
        before = (folder / CARD).read_text(encoding="utf-8").partition(SCORES)[0]
        write_text(folder / CARD, "\n".join([before + SCORES, *_score_lines(None)]) + "\n")


def _score_lines(result: Mapping[str, Any] | None, dataset: str = "") -> list[str]:
    if result is None:
        return ["Not evaluated yet: `rarevox evaluate RUN DATASET`."]
    rows = [f"Section `test` of {markdown(dataset)}, held out of training ({counted(result['n_cases'], 'case')}):", ""]
    rows += ["| structure | mean Dice | SD | median | cases |", "|---|---|---|---|---|"]
    for name, figures in result["structures"].items():
        dice = figures["dice"]
        cells = [figure(dice.get(key)) for key in ("mean", "std", "median")]
        rows.append(f"| {markdown(name)} | {' | '.join(cells)} | {dice['n']} |")
    conventions = (f"- {markdown(key.replace('_', ' '))}: {_in_words(v)}" for key, v in result["conventions"].items())
    return [*rows, "", "Conventions of these figures:", "", *conventions]


def _in_words(value: Any) -> str:
    """A convention as words: lists and mappings without Python's brackets.

    >>> _in_words({"lesion": [1, 2]}), _in_words(None), _in_words(False)
    ('lesion 1, 2', 'none', 'no')
    """
    if isinstance(value, Mapping):
        return "; ".join(f"{markdown(str(name))} {_in_words(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return markdown(str(value))


_TARGET = re.compile(r"""_target_["']?:\s*["']?(\w+)\.""")
_NAMES_BEFORE = {"losses", "networks", "pipeline", "transforms"}
"""Under which the packages were imported before they had the one name ``rarevox``."""


def require_run(folder: str | Path, stage: str) -> Path:
    """The folder of a run that holds the configuration of ``stage``.

    Raises:
        RequestError: it is no run, its configuration is no text of a bounded size, or it was written before its
            packages were imported as ``rarevox``.
    """
    folder = Path(folder)
    file = folder / "configs" / f"{stage}.yaml"
    if not file.is_file():
        cells = sorted(folder.glob("cells/*/configs")) if (folder / "plan.json").is_file() else []
        if cells:  # a command that knows cross-validations has found it to be one before
            raise RequestError(
                f"{folder} is a study or a cross-validation, and a run is wanted; give one of its own, such as "
                f"{cells[0].parent}"
            )
        raise RequestError(f"{folder} is not a run (no configs/{stage}.yaml); give the --output of `rarevox train`")
    named = set(_TARGET.findall(read_text(file, LARGEST_YAML)))
    if "rarevox" not in named and named & _NAMES_BEFORE:
        raise RequestError(
            f"{folder} was written before version 0.1.0, whose packages are imported as rarevox (its configurations "
            f"name {', '.join(sorted(named & _NAMES_BEFORE))}), and cannot be used any more; train again"
        )
    return folder
