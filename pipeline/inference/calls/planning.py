"""Which scans a call is about: found, named in a manifest, with their masks; what is none of them as rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.datalist import with_masks
from rarevox.pipeline.data.duplicates import without_duplicates
from rarevox.pipeline.data.manifest import read_manifest
from rarevox.pipeline.data.scans import Survey, require_scans, survey
from rarevox.pipeline.dicom.rules import Rule, parse_rule
from rarevox.pipeline.dicom.study import survey_series
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.calls.kept import source
from rarevox.pipeline.inference.outputs.output import Output, names_of
from rarevox.pipeline.words import counted
from rarevox.pipeline.workers.shards import Shard

Item = dict[str, Any]
_NAME_BYTES = 255
"""The longest file name, where the system does not say."""


@dataclass
class Plan:
    """The scans of a cohort, and what is no scan.

    Attributes:
        items: entries of a data list: ``case``, ``image``, perhaps ``mask``, ``roi``, ``manifest``.
        left: rows of what is no scan, or cannot be segmented.
    """

    items: list[Item]
    left: list[Item] = field(default_factory=list)

    def absolute(self) -> Plan:
        """The same with absolute paths, for workers that stand in other folders."""
        keys = ("image", "mask", "roi")
        items = [item | {key: _absolute(item[key]) for key in keys if key in item} for item in self.items]
        return Plan(items, self.left)

    def digest(self) -> str:
        """What tells this list from another."""
        total = hashlib.sha256()
        for item in self.items:
            total.update(f"{item['case']}\0{item['image']}\0".encode("utf-8", "surrogatepass"))
        return total.hexdigest()[:16]

    def share(self, shard: Shard | None) -> tuple[list[tuple[int, Item]], list[tuple[int, Item]]]:
        """The scans and the rows of one call, each with its number in the list."""
        numbered = list(enumerate(self.items))
        left = list(enumerate(self.left, start=len(self.items)))
        return (numbered, left) if shard is None else (shard.of(numbered), shard.of(left))


def plan(
    scans: Sequence[str | Path],
    config: Mapping[str, Any],
    *,
    manifest: str | Path | None = None,
    masks: str | Path | None = None,
    roi: str | Path | None = None,
    duplicates: str | None = None,
    series: Sequence[str] = (),
    links: Path | None = None,
    optional: Sequence[str] = (),
) -> Plan:
    """The scans of a request.

    Args:
        scans: files and folders; see :func:`rarevox.pipeline.data.scans.survey`.
        config: the run's, for its channels.
        manifest: a table of scans; see :func:`rarevox.pipeline.data.manifest.read_manifest`.
        masks: a folder of masks for normalisation.
        roi: a folder of masks, or one for all scans, that say what is to be segmented.
        duplicates: see :func:`rarevox.pipeline.data.duplicates.without_duplicates`; None does not look for them.
        series: rules that choose series among those of DICOM trees, one, or one for each channel; see
            :func:`rarevox.pipeline.dicom.rules.parse_rule`.
        links: where chosen series that share a folder with others get one of their own.
        optional: names of channels that a scan may lack.

    Raises:
        RequestError: there are none, or no masks.
    """
    channels, rule = config["channels"], config.get("channel_files")
    if series and scans:
        assert links is not None
        found = survey_series(scans, chosen_rules(series, channels), links)
    else:
        found = survey(scans, channels, rule, optional) if scans else Survey()
    if manifest is not None:
        found = read_manifest(manifest, channels, found)
    result = Plan(require_scans(found), found.left)
    if masks is not None:
        result.items = _added(result.items, with_masks(result.items, masks), "mask")
    if roi is not None:
        result = _with_regions(result, roi)
    if duplicates is not None:
        result = Plan(*without_duplicates(result.items, result.left, duplicates))
    return result


def chosen_rules(series: Sequence[str], channels: Sequence[str]) -> list[Rule]:
    """The rules of a request.

    Raises:
        RequestError: of another form, or neither one nor as many as there are channels.
    """
    rules = [parse_rule(text) for text in series]
    if len(rules) != len(channels):
        needed = f"{counted(len(channels), 'channel')} ({', '.join(channels)})"
        raise RequestError(f"{len(rules)} --series for {needed}; give one for each, in that order")
    return rules


def with_names_that_fit(wanted: Plan, folder: Path, outputs: Sequence[Output]) -> Plan:
    """The scans whose files' names the file system takes, and rows of the others.

    Args:
        wanted: scans and rows.
        folder: of the maps.
        outputs: what is written of each scan.
    """
    most = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else _NAME_BYTES
    sure = max(len(name) for name in names_of(outputs, {"case": "", "image": ""}))
    fitting, left = [], []
    for item in wanted.items:
        if 4 * len(str(item["case"])) + sure <= most:  # a letter has four bytes at the most
            fitting.append(item)
            continue
        try:
            bytes_ = max(len(os.fsencode(part)) for name in names_of(outputs, item) for part in name.split("/"))
            reason = f"the name of its map would have {bytes_} bytes where {most} are allowed; rename the scan"
        except UnicodeEncodeError:
            bytes_, reason = most + 1, "its name cannot be a file's; rename the scan"
        if bytes_ <= most:
            fitting.append(item)
        else:
            left.append({"case": item["case"], **source(item), "status": "failed", "reason": reason})
    return Plan(fitting, [*wanted.left, *left])


def _absolute(files: str | list[str]) -> str | list[str]:
    return [os.path.abspath(file) for file in files] if isinstance(files, list) else os.path.abspath(files)


def _added(items: Sequence[Item], masked: Sequence[Item], key: str) -> list[Item]:
    """Masks of a folder, but where the scan has one of its own from a manifest."""
    return [item if key in item else found for item, found in zip(items, masked, strict=True)]


def _with_regions(wanted: Plan, roi: str | Path) -> Plan:
    """The scans with their regions of interest, and rows of those without one, which are never segmented whole."""
    items = _added(wanted.items, with_masks(wanted.items, roi, "roi"), "roi")
    expected = "expected a file called CASE or CASE_mask (.nii.gz …)"
    missing = [item for item in items if "roi" not in item]
    if len(missing) == len(items):
        more = " …" if len(missing) > 5 else ""
        listed = ", ".join(str(item["case"]) for item in missing[:5])
        raise RequestError(f"--roi {roi} holds no mask for {listed}{more}; {expected}")
    reason = f"--roi {roi} holds no mask for it; {expected}"
    left = [{**item, "status": "failed", "reason": reason} for item in missing]
    return Plan([item for item in items if "roi" in item], [*wanted.left, *left])
