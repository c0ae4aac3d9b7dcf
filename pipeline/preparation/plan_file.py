"""``plan.yaml``: how to train on a dataset, chosen from its fingerprint, with the reason of each choice."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from rarevox.pipeline.compose import PLAN_FILE
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.files import write_text
from rarevox.pipeline.preparation.rules.choice import RARE, Choice, foreground_share
from rarevox.pipeline.preparation.rules.grid import plan_batch, plan_mirror, plan_patch, plan_rotations, plan_spacing
from rarevox.pipeline.preparation.rules.intensities import (
    CT_WINDOW,
    plan_augmentation,
    plan_normalisation,
    plan_statistics,
)
from rarevox.pipeline.preparation.rules.loss import plan_loss
from rarevox.pipeline.preparation.rules.network import plan_network
from rarevox.pipeline.preparation.rules.sampling import lesions_of, plan_background, plan_planting, plan_sampler

EDITED_FILE = "plan.edited.yaml"  # and plan.edited-2.yaml, -3 and so on, of those edited later
_SIGNED = "# as prepare wrote it: "


def make_plan(dataset: Dataset, fingerprint: Mapping[str, Any]) -> list[Choice]:
    """The choices for a dataset, from its ``fingerprint.json``; ``docs/prepare.md`` has the rules.

    Patch and batch are for the network that is planned.
    """
    spacing = plan_spacing(fingerprint["per_case"])
    network = plan_network(fingerprint)
    patch = plan_patch(dataset, spacing.value, network.value)
    planting = plan_planting(fingerprint)
    normalisation = plan_normalisation(
        fingerprint["channels"],
        masks=any("mask" in case for case in dataset.training),
        rare=foreground_share(fingerprint) < RARE,
        common=fingerprint.get("common_tissue"),
    )
    ct = normalisation.value["_target_"] == CT_WINDOW
    rotations = plan_rotations(fingerprint["per_case"], spacing.value)
    classes = [dataset.label_values.index(fingerprint["structures"][name]["value"]) for name in lesions_of(fingerprint)]
    planted = Choice("lesion_library#classes", classes, "Structures of few components are organs, and are not planted.")
    return [
        spacing,
        network,
        patch,
        plan_batch(patch.value, len(dataset.training)),
        normalisation,
        plan_sampler(fingerprint),
        plan_background(fingerprint),
        planting,
        *([planted] if planting.value else []),
        plan_loss(fingerprint),
        *plan_augmentation(fingerprint, ct=ct),
        plan_statistics(fingerprint, ct=ct),
        *([rotations] if rotations else []),
        plan_mirror(dataset),
    ]


def plan_text(name: str, choices: Sequence[Choice]) -> str:
    """The choices as YAML with their reasons as comments, and a last line that tells an edited plan."""
    head = (
        f"How to train on {name}, chosen by rarevox prepare from fingerprint.json. Edit what you like: rarevox train "
        "reads this file after the facts of the dataset; --network (with its own patch_size and batch_size), --config "
        "and --set win over it."
    )
    lines = _comment(head)
    for choice in choices:
        value = yaml.dump(choice.value, default_flow_style=True, sort_keys=False, width=1000)
        lines += ["", *_comment(choice.reason), f"{choice.key}: {value.removesuffix('...' + chr(10)).strip()}"]
    text = "\n".join(lines) + "\n\n"
    return f"{text}{_SIGNED}{_digest(text)}\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ")


def write_plan(folder: Path, name: str, choices: Sequence[Choice]) -> Path | None:
    """Write ``plan.yaml``; one that was edited is kept beside it. Returns where it is kept, None where none was."""
    path, kept = folder / PLAN_FILE, None
    if path.is_file() and is_edited(path.read_bytes().decode(errors="replace")):
        names = (Path(EDITED_FILE).with_stem(f"{Path(EDITED_FILE).stem}-{number}").name for number in count(2))
        kept = next(file for file in (folder / name for name in chain([EDITED_FILE], names)) if not file.exists())
        path.replace(kept)
    write_text(path, plan_text(name, choices))
    return kept


def is_edited_plan(name: str) -> bool:
    """Whether a file's name is that of a plan that was edited and kept.

    >>> [is_edited_plan(name) for name in ("plan.edited.yaml", "plan.edited-2.yaml", "plan.yaml", "plan.edited-x.yaml")]
    [True, True, False, False]
    """
    first = Path(EDITED_FILE)
    return bool(re.fullmatch(rf"{re.escape(first.stem)}(-\d+)?{re.escape(first.suffix)}", name))


def is_edited(text: str) -> bool:
    """Whether a plan's text is no longer what prepare wrote."""
    body, sign, digest = text.partition(_SIGNED)
    return not sign or digest.strip() != _digest(body)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
