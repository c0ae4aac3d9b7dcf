"""Planting into whole batches, where they lie: on the CPU, or on a device that holds the cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rarevox.transforms.batches.intensity import Batch, BatchTransform, Generators
from rarevox.transforms.planting.patches import Planned
from rarevox.transforms.planting.transform import RandPlantLesionsd


class BatchPlantLesions(BatchTransform):
    """:class:`rarevox.transforms.RandPlantLesionsd` for batches: the same lesions by the same rules.

    What is planted, and where it is tried, is drawn on the CPU from each patch's own generator, so that a patch comes
    out the same in every batch; all that depends on intensities is computed where the batch lies, and the host waits
    for none of it. The batch gets ``planted`` (B, 2) and ``planted_lesions`` (B, most, 1 + classes), and loses its
    masks.

    Args:
        planting: the transform of single patches, with all options.
        together: one lesion for every patch at once; None is on a device, where eight patches then take 642 kernels
            and one 565. On the CPU, where small lesions would wait for lists as long as the largest's, patch by patch.
    """

    def __init__(self, planting: RandPlantLesionsd, *, together: bool | None = None) -> None:
        super().__init__(planting.keys, planting.prob)
        self.planting = planting
        self.together = together

    def __call__(self, batch: Batch, generators: Generators, drawn_for: Sequence[str] | None = None) -> Batch:
        """Plant; ``drawn_for`` says of each patch what it was drawn for."""
        one = self.planting
        chosen = set(self.chosen(generators))
        image, labels = batch[one.keys[0]], batch[one.label_key]
        planned: list[list[Planned]] = []
        for row, generator in enumerate(generators):
            random = np.random.RandomState(int(generator.integers(2**32)))
            wanted = row in chosen and one.takes(None if drawn_for is None else drawn_for[row])
            planned.append(one.plan(image.shape[2:], random) if wanted else [])
        out = {key: value for key, value in batch.items() if key != one.mask_key}
        together = image.device.type != "cpu" if self.together is None else self.together
        mask = batch.get(one.mask_key)
        found = one.planted(image, labels, mask, planned, looks=drawn_for is None, together=together)
        return out | {"planted": found.totals, "planted_lesions": found.lesions}
