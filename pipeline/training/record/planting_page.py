"""``logs/planting.html``: training patches before and after lesions were planted, to be looked at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from scipy import ndimage

from rarevox.pipeline.console import console
from rarevox.pipeline.files import read_json
from rarevox.pipeline.page import write_page
from rarevox.pipeline.pictures import OKABE_ITO, window
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.transforms.planting.transform import RandPlantLesionsd

TEMPLATE = Path(__file__).with_name("templates") / "planting.html"
TRIED = 60
"""Draws that are looked through for planted ones."""
INTO_WORDS = {
    "any": "the patches",
    "background": "the patches without foreground",
    "foreground": "the patches drawn for foreground",
}
ENLARGED = 3
"""Pixels of a voxel's edge."""


class PlantingPage:
    """When training starts, write pictures of the first draws in which lesions are planted; when it ends, what was
    planted in all, from ``patches.json`` beside the page.

    The patches are those of the run's first draws, every one of them planted; the lesions are others than the run's own
    draws get, of the same library and by the same rules. Without planting nothing is written.

    Args:
        planting: the run's transform.
        dataset: the run's draws.
        folder: the run's ``logs`` folder.
        channels: names of the image's channels.
        count: patches that are shown.
    """

    def __init__(
        self,
        planting: RandPlantLesionsd,
        dataset: PatchDataset,
        folder: str | Path,
        channels: Sequence[str],
        count: int = 8,
    ) -> None:
        self.planting = planting
        self.dataset = dataset
        self.path = Path(folder) / "planting.html"
        self.channels = list(channels)
        self.count = count

    def attach(self, engine: Engine) -> None:
        """Write the page when the trainer starts, and again when it ends, in the first process."""
        if self.planting.prob > 0:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.COMPLETED, self._end)

    def _end(self, _: Engine) -> None:
        counted = self.path.with_name("patches.json")
        if processes.is_first() and self.planting.library.donors and counted.is_file():
            self.write(read_json(counted)["planted"])

    def _start(self, _: Engine) -> None:
        library = self.planting.library
        if not processes.is_first() or self.path.exists():
            return
        if library.donors:
            self.write()
            if library.maps is not None and not library.shapes:
                console.say(
                    "[yellow]no shape of {} is planted[/]: no training case has a lesion of class {}, whose contrast "
                    "they could take",
                    str(library.maps),
                    str(library.map_class),
                )
            return
        sizes, extent = library.sizes, "×".join(map(str, library.extent))
        console.say(
            "[yellow]nothing is planted[/]: in no training case a lesion of {} to {} voxels, within {} voxels, stands "
            "out from healthy tissue around it",
            *sizes,
            extent,
        )

    def write(self, planted: Mapping[str, Any] | None = None) -> None:
        """Write the page, with what was planted in all where that is known."""
        options, library = self.planting, self.planting.library
        transform = RandPlantLesionsd(
            options.keys,
            library,
            label_key=options.label_key,
            mask_key=options.mask_key,
            prob=1.0,
            count=options.count,
            margin=options.margin,
            into=options.into,
            mirror=options.mirror,
        )
        rows: list[dict[str, Any]] = []
        for draw in range(TRIED):
            if len(rows) == self.count:
                break
            cut = self.dataset.patches([self.dataset.place_of(draw)])
            before: dict[str, Any] = {key: value[0] for key, value in cut.items()}
            after = transform.set_random_state(seed=draw)(before | {"drawn_for": self.dataset.drawn_for(draw)})
            if after["planted"][0] > 0:
                rows.append(self._row(draw, before, after))
        sizes = [donor.voxels for donor in (*library.donors, *library.shapes)]
        write_page(
            self.path,
            TEMPLATE,
            title="Planted lesions",
            patches=rows,
            planted=planted,
            channels=self._names(len(rows[0]["pictures"]) if rows else 0),
            tried=TRIED,
            found=len(library.donors),
            cases=len({donor.case for donor in library.donors}),
            shapes=len(library.shapes),
            maps=str(library.maps),
            smallest=min(sizes),
            largest=max(sizes),
            median=int(np.median(sizes)) + 1,
            share=options.prob,
            into=INTO_WORDS[options.into],
            least=options.count[0],
            most=options.count[1],
        )

    def _names(self, count: int) -> list[str]:
        """The channels' names, numbers where the image has others than the scan."""
        return self.channels if len(self.channels) == count else [f"channel {number}" for number in range(count)]

    def _row(self, draw: int, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        key, label = self.planting.keys[0], self.planting.label_key
        images = [part[key].float().cpu().numpy() for part in (before, after)]
        known, marked = (part[label][0].cpu().numpy() != 0 for part in (before, after))
        planted = marked & ~known
        place = int(planted.sum(axis=tuple(range(planted.ndim - 1))).argmax())
        lesions, voxels = after["planted"].tolist()
        case = self.dataset.data[self.dataset.case_of(draw)].get("case", "")
        pictures = [
            pair(images[0][channel], images[1][channel], known, planted, place) for channel in range(len(images[0]))
        ]
        return {"draw": draw, "case": str(case), "lesions": lesions, "voxels": voxels, "pictures": pictures}


def pair(before: np.ndarray, after: np.ndarray, known: np.ndarray, planted: np.ndarray, place: int) -> str:
    """A slice of a channel, (*spatial), before and after side by side, as PNG in base64."""
    from PIL import Image

    low, high = window(before)
    sides = []
    for volume, outlined in ((before, (known,)), (after, (known, planted))):
        grey = np.clip((volume[..., place] - low) / (high - low), 0, 1)
        picture = np.repeat(np.repeat((255 * grey).astype(np.uint8).T[::-1], ENLARGED, 0), ENLARGED, 1)
        coloured = np.repeat(picture[:, :, None], 3, 2)
        for mask, colour in zip(outlined, OKABE_ITO, strict=False):
            large = np.repeat(np.repeat(mask[..., place].T[::-1], ENLARGED, 0), ENLARGED, 1)
            outside = ndimage.binary_dilation(large) & ~large
            coloured[outside] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        sides.append(np.pad(coloured, ((0, 0), (1, 1), (0, 0))))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(sides, 1)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
