"""Which figures are a run's own, where they go, and what others may not touch: its folder, card and metadata.

Own figures are those of the run by itself, as it stands, on its own dataset as that was split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.bundle import CARD, METADATA, bundle_metadata, card_text, left_out_of, with_left_out
from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.learnt import learnt_cases, noted_cases
from rarevox.pipeline.entries import parse_setting
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.files import json_text, read_json, write_text
from rarevox.pipeline.names import plain_name
from rarevox.pipeline.trust.sums import keeping_sums

JUDGING = ("metric_options", "gates", "calibration", "curves")
"""Keys that say how labels are judged; any other may change them, but for"""
MEANS = ("inferer#memory_gb", "inferer#tile_batch", "cuda_graphs")
"""with what they are computed."""


def changes_labels(settings: Sequence[str]) -> bool:
    """Whether settings say more than how labels are judged: the figures are not those of the run as it stands."""
    keys = [parse_setting(text)[0] for text in settings]
    return any(key.partition("#")[0] not in JUDGING and key not in MEANS for key in keys)


def name_of(
    run: Path,
    data: Dataset,
    fold: int | str,
    section: str,
    others: Sequence[str | Path],
    without: Sequence[str],
    settings: Sequence[str],
) -> str:
    """The folder of an evaluation: figures on other data or another split, or of a run that was set otherwise for one
    call, leave the run's own alone."""
    split_anew = noted_cases(run) not in (None, learnt_cases(data, fold))
    elsewhere = [plain_name(data.name)] if _is_of_others(run, data) else ["other_split"] if split_anew else []
    changed = ["other_settings"] if changes_labels(settings) else []
    return "_".join(
        [section, *elsewhere, *(["ensemble"] if others else []), *(["without", *without] if without else []), *changed]
    )


def _is_of_others(run: Path, data: Dataset) -> bool:
    """Whether a run says that it was trained on other data."""
    try:
        source = read_json(run / METADATA)["data_source"]
        return isinstance(source, str) and data.fingerprint not in source
    except (RequestError, LookupError, TypeError):
        return False


def update_bundle(run: Path, data: Dataset, result: dict[str, Any]) -> None:
    """Write the held-out scores into the bundle's metadata and model card, which tell of the run's own dataset.

    What is wrong with the files that they are made from is told: the evaluation is done, and stands without them.
    """
    try:
        if data.fingerprint not in read_json(run / METADATA).get("data_source", ""):
            console.say("[yellow]the model card is left as it is[/yellow]: {} is not the dataset of the run", data.name)
            return
        config = read_yaml(run / "configs" / "train.yaml")
        means = {name: figures["dice"]["mean"] for name, figures in result["structures"].items()}
        scores = {f"dice_{name}": mean for name, mean in means.items() if mean is not None and np.isfinite(mean)}
        facts = json_text(bundle_metadata(config, data, scores))
        card = with_left_out(card_text(config, data, result), left_out_of(run))
    except (RequestError, LookupError, TypeError, ValueError, AttributeError) as error:
        what = "configs/train.yaml or configs/metadata.json is not what rarevox train wrote"
        console.say("[yellow]the model card is left as it is[/yellow]: {}: {}", what, reason_of(error))
        return
    with keeping_sums(run) as texts:
        texts[METADATA] = facts
    write_text(run / CARD, card)
