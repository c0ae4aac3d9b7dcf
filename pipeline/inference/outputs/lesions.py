"""Tables of a cohort's lesions and structures, for each scan the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.cohort.rows import TABLES
from rarevox.pipeline.inference.atlas import Atlas
from rarevox.pipeline.inference.lesions import intensity_rows, lesion_rows
from rarevox.pipeline.inference.outputs.output import Result
from rarevox.pipeline.inference.probabilities import ProbabilityMaps
from rarevox.transforms.reading.stand_ins import MISSING

if TYPE_CHECKING:
    from rarevox.pipeline.inference.watch import Watch


class Lesions:
    """``lesions.csv`` and ``structures.csv``; see :func:`rarevox.pipeline.inference.lesions.lesion_rows`.

    Args:
        structures: names of the classes 1, 2, ….
        channels: names of the channels.
        probabilities: tell how sure the network was of each lesion, which takes a scratch file for each structure.
        atlas: names the regions that lesions lie in.
        regions: nested regions of structures, name to label values, the outermost first, whose parts are told in place
            of the structures'.
    """

    def __init__(
        self,
        structures: Sequence[str],
        channels: Sequence[str],
        *,
        probabilities: bool = False,
        atlas: Atlas | None = None,
        regions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.structures, self.channels = list(regions or structures), list(channels)
        self.regions = {name: tuple(values) for name, values in (regions or {}).items()}
        self.probabilities, self.atlas = probabilities, atlas

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """Tables are of the whole cohort."""
        return []

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Maps that gather the probabilities, where they are asked for."""
        if not self.probabilities:
            return None
        return ProbabilityMaps(self.structures, "uint16", folder, nested=bool(self.regions))

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """The rows of the scan; no file."""
        shown: dict[str, tuple[np.ndarray, float]] = {}
        if isinstance(watch, ProbabilityMaps):
            shown = {name: (found, 65535.0) for name, found in zip(self.structures, watch.maps, strict=True)}
        regions = None if self.atlas is None else self.atlas.on_grid(result.grid.shape, result.grid.affine)
        names = None if self.atlas is None else self.atlas.names
        structures = self.regions or result.structures
        found = lesion_rows(
            result.labels, structures, result.grid.affine, probabilities=shown, regions=regions, names=names
        )
        if isinstance(watch, ProbabilityMaps):
            shown.clear()
            watch.close()
        scan = result.scan
        lacks = result.item.get(MISSING, ())
        channels = [name for name in self.channels if name not in lacks]
        if len(channels) != len(scan.array):  # a file of all channels, of which some were left out
            channels = (
                self.channels if len(self.channels) == len(scan.array) else list(map(str, range(len(scan.array))))
            )
        statistics = intensity_rows(result.labels, structures, scan.array, channels, scan.voxel_ml)
        return {TABLES: {"lesions": found, "structures": statistics}}
