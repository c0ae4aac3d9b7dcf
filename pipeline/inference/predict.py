"""The prediction stage: label maps for files and folders of scans, one bad scan never stopping the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.bundle import require_run, version
from rarevox.pipeline.console import console, progress_bar
from rarevox.pipeline.data.datalist import find_scans, with_masks
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.files import claim_folder, clear_parts, write_json
from rarevox.pipeline.inference.ensemble import members_of, segmenter_of
from rarevox.pipeline.inference.entropy import EntropyMap
from rarevox.pipeline.inference.kept import RESULT_FILE, kept_rows, map_names, origin, read_rows, source
from rarevox.pipeline.inference.maps import Map, Maps
from rarevox.pipeline.inference.probabilities import ProbabilityMaps
from rarevox.pipeline.inference.saving import save_labels
from rarevox.pipeline.inference.segment import Segmentation
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
    trust: bool = False,
) -> int:
    """Segment scans with a trained run.

    Args:
        run: the run folder.
        scans: files or folders; see :func:`rarevox.pipeline.data.datalist.find_scans`.
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
        trust: take the runs' configurations whatever they build; see :mod:`rarevox.pipeline.trust.gate`.

    Returns:
        Exit status: 0, or 1 where some scans failed.

    Raises:
        RequestError: no run, no scans, no masks where a run needs them, an output folder of another kind or, where
            nothing is written over, of other runs or settings, runs of different structures.
    """
    runs = [require_run(folder, "inference") for folder in (run, *others)]
    configs = [run_config(folder, "inference", trust=trust) for folder in runs]
    config = configs[0]
    for folder, own in zip(runs, configs, strict=True):
        if masks is None and own["normalisation"].get("region") == "mask":
            raise RequestError(f"{folder} normalises inside a mask; give the folder of the scans' masks with --masks")
    items = find_scans([*scans], config["channels"], masks)
    items = items if roi is None else _with_regions(items, roi)
    folder = claim_folder(output, holds=_holds_predictions, what="a set of predictions")
    asked = [key for key, wanted in (("entropy", entropy), ("probabilities", probabilities)) if wanted]
    clear_parts(folder)
    earlier = _earlier(folder)
    made = origin(runs, settings)
    rows = {} if overwrite else kept_rows(folder, asked, made, items)
    segmenter = segmenter_of(run, others, device=device, settings=settings, trust=trust)
    if masks is not None and not any(_reads_masks(member.config) for member in members_of(segmenter)):
        console.print(f"[yellow]--masks changes nothing[/yellow]: {run} normalises whole scans")
    structures = dict(zip(config["structures"], config["label_values"][1:], strict=True))

    def maps(_: object) -> Maps:
        wanted: list[Map] = [EntropyMap()] if entropy else []
        return Maps([*wanted, ProbabilityMaps(list(structures), probabilities, folder)] if probabilities else wanted)

    todo = [item for item in items if item["case"] not in rows]
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(todo))
        for found in segmenter(todo, maps if asked else None):
            _remove(folder, found.case, earlier.get(found.case, {}))
            rows[found.case] = _store(found, folder, structures, config["composites"])
            _write(folder, rows, made, structures)
            bar.advance(task)
    _write(folder, rows, made, structures)
    failed = [row for row in rows.values() if row["status"] != "ok"]
    for row in rows.values():
        if "warning" in row:
            console.print(f"[yellow]{row['case']}: {row['warning']}[/]")
    for row in failed:
        console.print(f"[red]failed[/] {row['case']}: {row['reason']}")
    console.print(
        f"{len(rows) - len(failed)} of {len(rows)} scans segmented; label maps and {RESULT_FILE} are in {folder}"
    )
    return 1 if failed else 0


def _with_regions(items: list[dict[str, Any]], roi: str | Path) -> list[dict[str, Any]]:
    """The scans with their regions of interest; a scan without one is never segmented whole in its place."""
    items = with_masks(items, roi, "roi")
    missing = [item["case"] for item in items if "roi" not in item]
    if missing:
        raise RequestError(
            f"--roi {roi} holds no mask for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; expected files "
            "called CASE or CASE_mask (.nii.gz …)"
        )
    return items


def _reads_masks(config: Mapping[str, Any]) -> bool:
    """Whether masks count: in the normalisation, or for the bias field."""
    return config["normalisation"].get("region") == "mask" or bool(config["n4"])


def _holds_predictions(folder: Path) -> bool:
    """Whether everything in the folder is an earlier prediction's."""
    return all(entry.name == RESULT_FILE or _WRITTEN.search(entry.name) for entry in folder.iterdir())


def _earlier(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of an earlier call by case."""
    if not (folder / RESULT_FILE).is_file():
        return {}
    return {row["case"]: row for row in read_rows(folder)["scans"]}


def _remove(folder: Path, case: str, row: Mapping[str, Any]) -> None:
    """Remove an earlier call's maps of a scan: none must stand beside, or in place of, what this call makes of it."""
    written = [name for key in ("output", "entropy", "probabilities") for name in map_names(row.get(key))]
    for name in (f"{case}_seg.nii.gz", *written):
        (folder / Path(name).name).unlink(missing_ok=True)


def _store(
    found: Segmentation, folder: Path, structures: dict[str, int], composites: dict[str, list[int]]
) -> dict[str, Any]:
    """Write one label map and give its row; a failed write is a failed scan."""
    image = found.item["image"]
    row: dict[str, Any] = {"case": found.case, **source(found.item), "status": "failed", "reason": found.reason}
    row |= {"seconds": round(found.seconds, 3)}
    if found.labels is None:
        return row
    try:
        path, grid = save_labels(found.labels, image[0] if isinstance(image, list) else image, found.case, folder)
        if found.watch is not None:
            row |= found.watch.save(folder, found.case, grid)
    except (OSError, ValueError) as error:
        return row | {"reason": f"maps not written: {reason_of(error)}"}
    volume = {
        name: round(float(np.count_nonzero(found.labels == v)) * grid.voxel_ml, 4) for name, v in structures.items()
    }
    volume |= {
        name: round(sum(volume[n] for n, v in structures.items() if v in values), 4)
        for name, values in composites.items()
    }
    return row | {"status": "ok", "reason": "", "output": path.name, "volume_ml": volume, **(found.notes or {})}


def _write(folder: Path, rows: dict[str, dict[str, Any]], made: Mapping[str, Any], structures: dict[str, int]) -> None:
    write_json(
        folder / RESULT_FILE,
        {
            **made,
            "structures": structures,
            "scans": list(rows.values()),
            "versions": {name: version(name) for name in ("rarevox", "monai", "torch")},
        },
    )
