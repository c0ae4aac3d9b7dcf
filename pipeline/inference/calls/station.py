"""Where scans become rows: read, segmented and written one beside the other, in this process or another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import reason_of
from rarevox.pipeline.inference.calls.row import Row, begun_row, remove_files
from rarevox.pipeline.inference.outputs.output import Output, Result, watches_of, write_all
from rarevox.pipeline.inference.segment import Segmentation, Segmenter
from rarevox.pipeline.inference.watch import Together
from rarevox.pipeline.workers.job import Done
from rarevox.transforms.reader import Scan, read_grid
from rarevox.transforms.reading.scan import empty_view

UNWRITTEN = 2
"""Segmented scans that may wait to be written while the next one is computed."""


class Station:
    """A loaded segmenter and the outputs of a call.

    While a scan is computed the next is read in one thread and the last is compressed and written in another.

    Args:
        segmenter: of the run, or of an ensemble.
        outputs: what is written of each scan.
        folder: where to.
        made: how the maps are made.
    """

    def __init__(self, segmenter: Segmenter, outputs: Sequence[Output], folder: Path, made: Mapping[str, Any]) -> None:
        self.segmenter, self.outputs, self.folder, self.made = segmenter, list(outputs), folder, made
        config = segmenter.config
        self.structures = dict(zip(config["structures"], config["label_values"][1:], strict=True))
        self.composites: Mapping[str, Sequence[int]] = config["composites"]

    def work(self, tasks: Iterator[tuple[int, Any]], done: Done) -> None:
        """Segment and write scans; see :class:`rarevox.pipeline.workers.job.Worker`.

        Args:
            tasks: numbers with ``{"item": entry of a data list, "earlier": the row of an earlier call, or {}}``.
            done: gets the rows, from the writing thread.
        """
        taken: deque[tuple[int, Mapping[str, Any]]] = deque()
        room = threading.Semaphore(UNWRITTEN)
        writing: deque[Future[None]] = deque()

        def items() -> Iterator[Mapping[str, Any]]:
            for number, work in tasks:
                taken.append((number, work["earlier"]))
                yield work["item"]

        def write(found: Segmentation, number: int, earlier: Mapping[str, Any]) -> None:
            try:
                done(number, self.store(found, earlier))
            finally:
                room.release()

        with ThreadPoolExecutor(1) as writer:
            for found in self.segmenter(items(), self._watches):
                room.acquire()
                writing.append(writer.submit(write, found, *taken.popleft()))
                del found
                while writing and writing[0].done():
                    writing.popleft().result()
            for one in writing:
                one.result()

    def store(self, found: Segmentation, earlier: Mapping[str, Any]) -> Row:
        """Write a scan's files; its row. What cannot be written is a failed scan, of which no file stays.

        Args:
            found: what came of it.
            earlier: its row of an earlier call, whose files go.
        """
        remove_files(self.folder, self.outputs, found.item, earlier)
        row = self._stored(found)
        if row["status"] != "ok":
            remove_files(self.folder, self.outputs, found.item, {})
        return row

    def _stored(self, found: Segmentation) -> Row:
        row = begun_row(found.item, found.reason) | {"seconds": round(found.seconds, 3)}
        if found.labels is None:
            return row
        try:
            result = Result(found, grid_of(found), self.structures, self.composites, self.made)
            written = write_all(self.outputs, result, self.folder)
        except Exception as error:  # whatever a library makes of one scan must not stop the others
            return row | {"reason": f"maps not written: {reason_of(error)}"}
        return row | {"status": "ok", "reason": ""} | written | dict(found.notes or {})

    def _watches(self, item: Mapping[str, Any]) -> Together | None:
        return watches_of(self.outputs, item, self.folder)


def grid_of(found: Segmentation) -> Scan:
    """Where the scan lies. Of a series, whose grid only reading all of it tells, as it was read."""
    image = found.item["image"]
    path = Path(image[0] if isinstance(image, list) else image)
    if found.grid is None or not path.is_dir():
        return read_grid(path)
    shape, affine = found.grid
    return Scan(empty_view(shape, path), affine, (path,))
