"""What `predict` leaves in its folder: maps, and ``predictions.json`` with a row for every map and every refusal."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.bundle import version
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import reason_of
from rarevox.pipeline.files import write_json
from rarevox.pipeline.inference.kept import RESULT_FILE, map_names, source
from rarevox.pipeline.inference.probabilities import file_names
from rarevox.pipeline.inference.saving import save_labels
from rarevox.pipeline.inference.segment import Segmentation

Row = dict[str, Any]
_NAME_BYTES = 255
"""The longest file name, where the system does not say."""


class Predictions:
    """The rows of a call, by case, and the maps that they speak of.

    Args:
        folder: where everything is written.
        made: how the maps are made, see :func:`rarevox.pipeline.inference.kept.origin`.
        structures: name to label value.
        composites: unions of them, name to values.
        left: rows of what is no scan.
        earlier: rows of an earlier call, whose maps go when their scan's come.
        rows: those of them that count already.
    """

    def __init__(
        self,
        folder: Path,
        made: Mapping[str, Any],
        structures: Mapping[str, int],
        composites: Mapping[str, Sequence[int]],
        *,
        left: Iterable[Row] = (),
        earlier: Mapping[str, Row] | None = None,
        rows: Mapping[str, Row] | None = None,
    ) -> None:
        self.folder, self.made = folder, made
        self.structures, self.composites = dict(structures), dict(composites)
        self.left, self.earlier = list(left), dict(earlier or {})
        self.rows: dict[str, Row] = dict(rows or {})

    def store(self, found: Segmentation) -> None:
        """Write a scan's maps and its row; what cannot be written is a failed scan, of which no map stays."""
        self.remove(found.case)
        self.rows[found.case] = row = self._stored(found)
        if row["status"] != "ok":
            self._remove_maps(found.case, {})
        self.write()

    def remove(self, case: str) -> None:
        """Remove an earlier call's maps of a scan: none must stand beside, or in place of, what this call makes."""
        self._remove_maps(case, self.earlier.get(case, {}))
        self.rows.pop(case, None)

    def _remove_maps(self, case: str, row: Mapping[str, Any]) -> None:
        written = [name for key in ("output", "entropy", "probabilities") for name in map_names(row.get(key))]
        named = [f"{case}_seg.nii.gz", f"{case}_entropy.nii.gz"]
        named += [f"{case}_prob_{name}.nii.gz" for name in file_names(list(self.structures))]
        for name in {*named, *written}:
            try:
                (self.folder / Path(name).name).unlink(missing_ok=True)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:  # of such a name there is no map
                    raise

    def _stored(self, found: Segmentation) -> Row:
        image = found.item["image"]
        row: Row = {"case": found.case, **source(found.item), "status": "failed", "reason": found.reason}
        row |= {"seconds": round(found.seconds, 3)}
        if found.labels is None:
            return row
        try:
            first = image[0] if isinstance(image, list) else image
            path, grid = save_labels(found.labels, first, found.case, self.folder)
            if found.watch is not None:
                row |= found.watch.save(self.folder, found.case, grid)
        except (OSError, ValueError) as error:
            kept = {key: row[key] for key in row if key not in ("entropy", "probabilities")}
            return kept | {"reason": f"maps not written: {reason_of(error)}"}
        counts = {name: float(np.count_nonzero(found.labels == value)) for name, value in self.structures.items()}
        volume = {name: round(count * grid.voxel_ml, 4) for name, count in counts.items()}
        for name, values in self.composites.items():
            volume[name] = round(sum(volume[n] for n, value in self.structures.items() if value in values), 4)
        return row | {"status": "ok", "reason": "", "output": path.name, "volume_ml": volume, **(found.notes or {})}

    def write(self) -> str:
        """Write ``predictions.json``; why it could not be, or nothing."""
        content = {
            **self.made,
            "structures": self.structures,
            "scans": [*self.rows.values(), *self.left],
            "versions": {name: version(name) for name in ("rarevox", "monai", "torch")},
        }
        try:
            write_json(self.folder / RESULT_FILE, content)
        except OSError as error:
            return (
                f"{RESULT_FILE} not written: {error.strerror or error}; free some space and predict again with --keep"
            )
        return ""

    def finish(self) -> int:
        """Hold the rows against the maps that are there, tell what failed, and give the exit status."""
        for case, row in self.rows.items():
            gone = [name for name in all_maps(row) if not (self.folder / name).is_file()]
            if gone:
                kept = {key: row[key] for key in row if key not in ("output", "entropy", "probabilities", "volume_ml")}
                reason = (
                    f"{', '.join(gone)} is not in {self.folder} any more: the folder was moved or emptied meanwhile"
                )
                self.rows[case] = kept | {"status": "failed", "reason": reason}
        unwritten = self.write()
        rows = [*self.rows.values(), *self.left]
        for row in rows:
            if "warning" in row:
                console.say("[yellow]{}: {}[/]", row["case"], row["warning"])
        for row in rows:
            if row["status"] != "ok":
                console.say("[red]{}[/] {}: {}", row["status"], row["case"], row["reason"])
        done = sum(row["status"] == "ok" for row in rows)
        ignored = sum(row["status"] == "ignored" for row in rows)
        besides = f" ({ignored} other entries are no scans)" if ignored else ""
        where = unwritten or f"label maps and {RESULT_FILE} are in {self.folder}"
        console.print(f"{done} of {len(rows) - ignored} scans segmented{besides}; {where}")
        return 0 if done == len(rows) and not unwritten else 1


def all_maps(row: Mapping[str, Any]) -> list[str]:
    """The names of the files that an ok row speaks of."""
    if row["status"] != "ok":
        return []
    return [name for key in ("output", "entropy", "probabilities") for name in map_names(row.get(key))]


def with_names_that_fit(
    items: Sequence[dict[str, Any]], folder: Path, endings: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Row]]:
    """The scans whose maps' names the file system takes, and rows of the others.

    Args:
        items: scans.
        folder: of the maps.
        endings: of the names of maps after the case.
    """
    most = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else _NAME_BYTES
    fitting, left = [], []
    for item in items:
        bytes_ = max(len(os.fsencode(f"{item['case']}{ending}")) for ending in endings)
        if bytes_ <= most:
            fitting.append(item)
            continue
        reason = f"the name of its map would have {bytes_} bytes where {most} are allowed; rename the scan"
        left.append({"case": item["case"], **source(item), "status": "failed", "reason": reason})
    return fitting, left
