"""Entropy and class probabilities of a scan as maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.inference.entropy import EntropyMap
from rarevox.pipeline.inference.outputs.output import Result
from rarevox.pipeline.inference.probabilities import ProbabilityMaps, file_names

if TYPE_CHECKING:
    from rarevox.pipeline.inference.watch import Watch


class Entropy:
    """``CASE_entropy.nii.gz``; see :class:`rarevox.pipeline.inference.entropy.EntropyMap`."""

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """Of the one file."""
        return [f"{item['case']}_entropy.nii.gz"]

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """A map that gathers the entropy."""
        return EntropyMap()

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Write the map."""
        assert isinstance(watch, EntropyMap)
        return watch.save(folder, result.case, result.grid)


class Probabilities:
    """``CASE_prob_STRUCTURE.nii.gz``; see :class:`rarevox.pipeline.inference.probabilities.ProbabilityMaps`.

    Args:
        structures: names of the classes 1, 2, ….
        dtype: ``uint8`` or ``uint16``.
        nested: the structures are nested regions, the outermost first.
    """

    def __init__(self, structures: Sequence[str], dtype: str, *, nested: bool = False) -> None:
        self.structures, self.dtype, self.nested = list(structures), dtype, nested

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """One file for each structure."""
        return [f"{item['case']}_prob_{name}.nii.gz" for name in file_names(self.structures)]

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Maps that gather the probabilities, in scratch files in ``folder``."""
        return ProbabilityMaps(self.structures, self.dtype, folder, nested=self.nested)

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Write the maps."""
        assert isinstance(watch, ProbabilityMaps)
        return watch.save(folder, result.case, result.grid)
