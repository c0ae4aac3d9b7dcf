"""What `predict` leaves in its folder: maps, and ``predictions.json`` with a row for every map and every refusal."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import version
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import reason_of
from rarevox.pipeline.files import write_json
from rarevox.pipeline.inference.kept import RESULT_FILE, source
from rarevox.pipeline.inference.outputs.output import Output, Result, files_of, names_of, write_all
from rarevox.pipeline.inference.segment import Segmentation
from rarevox.transforms.reader import read_grid

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
        outputs: what is written of each scan.
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
        outputs: Sequence[Output],
        *,
        left: Iterable[Row] = (),
        earlier: Mapping[str, Row] | None = None,
        rows: Mapping[str, Row] | None = None,
    ) -> None:
        self.folder, self.made = folder, made
        self.structures, self.composites, self.outputs = dict(structures), dict(composites), list(outputs)
        self.left, self.earlier = list(left), dict(earlier or {})
        self.rows: dict[str, Row] = dict(rows or {})

    def store(self, found: Segmentation) -> None:
        """Write a scan's maps and its row; what cannot be written is a failed scan, of which no map stays."""
        self.remove(found.case)
        self.rows[found.case] = row = self._stored(found)
        if row["status"] != "ok":
            self._remove_maps(found.item, {})
        self.write()

    def remove(self, case: str) -> None:
        """Remove an earlier call's maps of a scan: none must stand beside, or in place of, what this call makes."""
        self._remove_maps({"case": case}, self.earlier.get(case, {}))
        self.rows.pop(case, None)

    def _remove_maps(self, item: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        for name in {*names_of(self.outputs, item), *(Path(name).name for name in files_of(row))}:
            try:
                (self.folder / name).unlink(missing_ok=True)
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
            grid = read_grid(image[0] if isinstance(image, list) else image)
            result = Result(found, grid, self.structures, self.composites, self.made)
            written = write_all(self.outputs, result, self.folder)
        except (OSError, ValueError) as error:
            return row | {"reason": f"maps not written: {reason_of(error)}"}
        return row | {"status": "ok", "reason": ""} | written | dict(found.notes or {})

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
    return files_of(row)


def with_names_that_fit(
    items: Sequence[dict[str, Any]], folder: Path, outputs: Sequence[Output]
) -> tuple[list[dict[str, Any]], list[Row]]:
    """The scans whose maps' names the file system takes, and rows of the others.

    Args:
        items: scans.
        folder: of the maps.
        outputs: what is written of each scan.
    """
    most = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else _NAME_BYTES
    fitting, left = [], []
    for item in items:
        bytes_ = max(len(os.fsencode(part)) for name in names_of(outputs, item) for part in name.split("/"))
        if bytes_ <= most:
            fitting.append(item)
            continue
        reason = f"the name of its map would have {bytes_} bytes where {most} are allowed; rename the scan"
        left.append({"case": item["case"], **source(item), "status": "failed", "reason": reason})
    return fitting, left
