"""The prediction stage: label maps for files and folders of scans, one bad scan never stopping the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.console import console, progress_bar
from rarevox.pipeline.data.datalist import with_masks
from rarevox.pipeline.data.missing import optional_channels
from rarevox.pipeline.data.scans import require_scans, survey
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import claim_folder, clear_parts
from rarevox.pipeline.inference.decided import threshold_settings
from rarevox.pipeline.inference.ensemble import members_of, segmenter_of
from rarevox.pipeline.inference.entropy import EntropyMap
from rarevox.pipeline.inference.kept import RESULT_FILE, earlier, kept_rows, origin, standing, superseded
from rarevox.pipeline.inference.maps import Map, Maps
from rarevox.pipeline.inference.predictions import Predictions, with_names_that_fit
from rarevox.pipeline.inference.probabilities import ProbabilityMaps, file_names
from rarevox.pipeline.locks import held
from rarevox.pipeline.trust.gate import run_config

_WRITTEN = re.compile(r"_(seg|entropy|prob_[^/]+)\.nii\.gz$|^\.")


def predict(
    run: str | Path,
    scans: Sequence[str | Path],
    output: str | Path,
    *,
    device: str = "auto",
    settings: Sequence[str] = (),
    overwrite: bool = True,
    masks: str | Path | None = None,
    entropy: bool = False,
    probabilities: str | None = None,
    roi: str | Path | None = None,
    others: Sequence[str | Path] = (),
    thresholds: Mapping[str, str] | None = None,
    trust: bool = False,
) -> int:
    """Segment scans with a trained run.

    Args:
        run: the run folder.
        scans: files or folders; see :func:`rarevox.pipeline.data.scans.survey`. Each ends as a map or as a row that
            says why not.
        output: gets ``CASE_seg.nii.gz`` for each scan, on its grid, and ``predictions.json``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's inference configuration.
        overwrite: False leaves out scans whose label map is there and was reported ok by an earlier call with the same
            runs and settings; see :func:`rarevox.pipeline.inference.kept.kept_rows`.
        masks: folder of masks for a run that normalises inside one; see
            :func:`rarevox.pipeline.data.datalist.find_scans`.
        roi: folder of masks that say what is to be segmented, or one mask for all scans; nothing is computed outside a
            mask's bounding box but the context that it needs, and outside the mask everything is background.
        others: further runs, which form an ensemble with ``run``; see :mod:`rarevox.pipeline.inference.ensemble`.
        entropy: write ``CASE_entropy.nii.gz`` too, see :class:`rarevox.pipeline.inference.entropy.EntropyMap`.
        probabilities: ``uint8`` or ``uint16`` writes ``CASE_prob_STRUCTURE.nii.gz`` too, see
            :class:`rarevox.pipeline.inference.probabilities.ProbabilityMaps`.
        thresholds: structure → probability above which a voxel is it, in place of the run's; further ``settings``.
        trust: take the runs' configurations whatever they build; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        Exit status: 0, or 1 where some scans failed, or some entries are no scans.

    Raises:
        RequestError: no run, no scans, no masks where a run needs them, an output folder of another kind, in which
            another call writes, or that would still hold maps of other runs or settings, runs of different structures.
    """
    settings = [*settings, *threshold_settings(thresholds or {})]
    runs = [require_run(folder, "inference") for folder in (run, *others)]
    configs = [run_config(folder, "inference", trust=trust) for folder in runs]
    config = configs[0]
    for folder, own in zip(runs, configs, strict=True):
        if masks is None and own["normalisation"].get("region") == "mask":
            raise RequestError(f"{folder} normalises inside a mask; give the folder of the scans' masks with --masks")
    found = survey(scans, config["channels"], config.get("channel_files"), _optional(configs))
    items, left = require_scans(found), found.left
    items = items if masks is None else with_masks(items, masks)
    items, more = (items, []) if roi is None else _with_regions(items, roi)
    structures = dict(zip(config["structures"], config["label_values"][1:], strict=True))
    asked = [key for key, wanted in (("entropy", entropy), ("probabilities", probabilities)) if wanted]
    with held(claim_folder(output, holds=_holds_predictions, what="a set of predictions")) as folder:
        clear_parts(folder)
        items, longer = with_names_that_fit(items, folder, _endings(asked, structures))
        left = [*left, *more, *longer]
        made = origin(runs, settings)
        before = earlier(folder)
        rows = standing(folder, before, made, items, left)
        kept = {} if overwrite else kept_rows(folder, before, asked, made, items)
        rows = rows if overwrite else kept
        segmenter = segmenter_of(run, others, device=device, settings=settings, trust=trust)
        if masks is not None and not any(_reads_masks(member.config) for member in members_of(segmenter)):
            console.say("[yellow]--masks changes nothing[/yellow]: {} normalises whole scans", run)

        def maps(_: object) -> Maps:
            wanted: list[Map] = [EntropyMap()] if entropy else []
            return Maps(
                [*wanted, ProbabilityMaps(list(structures), probabilities, folder)] if probabilities else wanted
            )

        by_case = {row["case"]: row for row in before["scans"]}
        written = Predictions(folder, made, structures, config["composites"], left=left, earlier=by_case, rows=rows)
        for case in superseded(before, made, items, left):
            written.remove(case)
        todo = [item for item in items if item["case"] not in kept]
        with progress_bar() as bar:
            task = bar.add_task("predicting", total=len(todo))
            for one in segmenter(todo, maps if asked else None):
                written.store(one)
                bar.advance(task)
        return written.finish()


def _optional(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The channels that a scan may lack, whichever of the runs segments it."""
    return [name for name in configs[0]["channels"] if all(name in optional_channels(config) for config in configs)]


def _endings(asked: Sequence[str], structures: Sequence[str] | Mapping[str, int]) -> list[str]:
    """The endings of the names of the maps that are written."""
    endings = ["_seg.nii.gz"]
    endings += ["_entropy.nii.gz"] if "entropy" in asked else []
    named = file_names(list(structures)) if "probabilities" in asked else []
    return [*endings, *(f"_prob_{name}.nii.gz" for name in named)]


def _with_regions(items: list[dict[str, Any]], roi: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scans with their regions of interest, and rows of those without one, which are never segmented whole."""
    items = with_masks(items, roi, "roi")
    expected = "expected a file called CASE or CASE_mask (.nii.gz …)"
    missing = [item["case"] for item in items if "roi" not in item]
    if len(missing) == len(items):
        more = " …" if len(missing) > 5 else ""
        raise RequestError(f"--roi {roi} holds no mask for {', '.join(missing[:5])}{more}; {expected}")
    reason = f"--roi {roi} holds no mask for it; {expected}"
    left = [{**item, "status": "failed", "reason": reason} for item in items if "roi" not in item]
    return [item for item in items if "roi" in item], left


def _reads_masks(config: Mapping[str, Any]) -> bool:
    """Whether masks count: in the normalisation, or for the bias field."""
    return config["normalisation"].get("region") == "mask" or bool(config["n4"])


def _holds_predictions(folder: Path) -> bool:
    """Whether everything in the folder is an earlier prediction's."""
    return all(entry.name == RESULT_FILE or _WRITTEN.search(entry.name) for entry in folder.iterdir())
