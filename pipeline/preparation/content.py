"""The content of ``dataset.json``: which files are a case, where they lie, and how they are dealt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.dataset import is_channel_rule
from rarevox.pipeline.preparation.cases import Case, Source
from rarevox.pipeline.preparation.split import Split


def dataset_content(
    source: Source,
    cases: dict[str, Case],
    channels: Sequence[str],
    labels: dict[str, int],
    split: Split,
    header: dict[str, Any],
) -> dict[str, Any]:
    """The content of ``dataset.json``: a MONAI data list whose file names are relative to ``root``.

    Where a subject has another name than its case, each case has its ``subject``.
    """
    named = any(case.subject not in ("", case.case) for case in cases.values())
    root = _common_root(source, [cases[name] for name in (*split.fold, *split.test)])

    def entry(case: Case) -> dict[str, Any]:
        names = [_relative(file, root) for file in case.image]
        row = {"case": case.case, "image": names if len(names) > 1 else names[0], "label": _relative(case.label, root)}
        row |= {"mask": _relative(case.mask, root)} if case.mask else {}
        return row | ({"subject": case.subject or case.case} if named else {})

    ordered = dict(sorted({"background": 0, **labels}.items(), key=lambda item: item[1]))
    return {
        "name": source.name,
        "root": str(root),
        "channels": list(channels),
        "labels": ordered,
        **header,
        "training": [{**entry(cases[name]), "fold": fold} for name, fold in split.fold.items()],
        "test": [entry(cases[name]) for name in split.test],
    }


def _common_root(source: Source, cases: Sequence[Case]) -> Path:
    """The source's folder, or where files lie outside it, the nearest folder that holds everything."""
    files = [file for case in cases for file in (*case.image, case.label, *([case.mask] if case.mask else []))]
    if all(file.is_relative_to(source.root) for file in files):
        return source.root
    return Path(os.path.commonpath([source.root, *(file.parent.resolve() for file in files)]))


def _relative(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()


def rule_of(source: Source, channels: int) -> list[str | int] | None:
    """What tells the channels' files apart, for whoever looks for scans of this kind later."""
    return list(source.channel_files or ()) if is_channel_rule(source.channel_files, channels) else None
