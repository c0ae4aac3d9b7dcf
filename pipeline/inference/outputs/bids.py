"""Label maps and probabilities as a BIDS derivative dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.bids.dataset import sidecar, write_dataset_files
from rarevox.pipeline.bids.names import Source, derived, labels_of, source_of
from rarevox.pipeline.bundle import version
from rarevox.pipeline.cohort.rows import FILES
from rarevox.pipeline.data.volumes import write_labels, write_shares
from rarevox.pipeline.files import write_json
from rarevox.pipeline.inference.outputs.labels import volumes_ml
from rarevox.pipeline.inference.outputs.output import Result
from rarevox.pipeline.inference.probabilities import ProbabilityMaps

if TYPE_CHECKING:
    from rarevox.pipeline.inference.watch import Watch

DESC = "rarevox"


class BidsMaps:
    """``sub-…/anat/…_dseg.nii.gz`` with its sidecar in place of ``CASE_seg.nii.gz``; ``_probseg`` on request.

    The files about the dataset are written with the first scan.

    Args:
        structures: names of the classes 1, 2, ….
        values: their values in label maps.
        roots: of the BIDS datasets that the scans are from.
        probabilities: ``uint8`` or ``uint16``.
        regions: nested regions, the outermost first, whose probabilities are written in place of the structures'.
    """

    def __init__(
        self,
        structures: Sequence[str],
        values: Sequence[int],
        roots: Sequence[str] = (),
        probabilities: str | None = None,
        regions: Sequence[str] = (),
    ) -> None:
        self.structures, self.values = list(structures), list(values)
        self.roots, self.probabilities = list(roots), probabilities
        self.nested, self.shown = bool(regions), list(regions) or self.structures

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """The map, its sidecar, and the same for each structure's probabilities."""
        if "image" not in item:  # a case alone: its row names its files
            return []
        return [name for pair in self._pairs(source_of(item["image"], item["case"])).values() for name in pair]

    def _pairs(self, source: Source) -> dict[str, tuple[str, str]]:
        """Map and sidecar, of the labels ("") and of each structure whose probabilities are written."""
        ends = (".nii.gz", ".json")
        pairs = {"": tuple(derived(source, "dseg", end, desc=DESC) for end in ends)}
        if self.probabilities:
            for name, label in zip(self.shown, labels_of(self.shown), strict=True):
                pairs[name] = tuple(derived(source, "probseg", end, label=label, desc=DESC) for end in ends)
        return pairs  # type: ignore[return-value]

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Maps that gather the probabilities, where they are asked for."""
        if not self.probabilities:
            return None
        return ProbabilityMaps(self.shown, self.probabilities, folder, nested=self.nested)

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Write them."""
        links = {f"raw{n}" if n > 1 else "raw": root for n, root in enumerate(self.roots, start=1)}
        labels = dict(zip(self.structures, self.values, strict=True))
        urls = {name: Path(root).as_uri() for name, root in links.items()}
        write_dataset_files(folder, labels, version("rarevox"), urls)
        source = source_of(result.item["image"], result.case)
        link = next((name for name, root in links.items() if str(source.root) == root), None)
        uri = f"bids:{link}:{source.within}" if link else Path(result.grid.paths[0]).absolute().as_uri()
        pairs = self._pairs(source)
        image, beside = pairs.pop("")
        write_labels(folder / image, result.labels, result.grid)
        volumes = volumes_ml(result)
        told = sidecar(f"Segmentation of {', '.join(self.structures)} by rarevox", uri, {"VolumesMl": volumes})
        write_json(folder / beside, told)
        row: dict[str, Any] = {"output": image, "volume_ml": volumes, FILES: [beside]}
        if not source.suffix:
            row["subject"] = source.entities["sub"]
        if isinstance(watch, ProbabilityMaps):
            row["probabilities"] = {}
            for (name, (path, side)), stored in zip(pairs.items(), watch.maps, strict=True):
                write_shares(folder / path, stored, result.grid)
                write_json(folder / side, sidecar(f"Probability of {name}", uri))
                row["probabilities"][name] = path
                row[FILES].append(side)
            watch.close()
        return row


def roots_of(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The roots of the BIDS datasets that scans are from, sorted."""
    found = {source_of(item["image"], item["case"]).root for item in items}
    return sorted(str(root) for root in found if root is not None)
