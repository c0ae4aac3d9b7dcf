"""What the network marks in whole training scans where there is nothing: hard patches where no draw has looked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils.enums import CommonKeys as Keys
from scipy import ndimage

from rarevox.pipeline.inference.tiling.surround import voxels_to_compute
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.dice_metric import classes_of
from rarevox.pipeline.training.draws.hard_patches import HardPatches
from rarevox.pipeline.training.draws.patch_dataset import Place, plain
from rarevox.transforms.labels import is_ignored
from rarevox.transforms.sampling.background import MixedIndex


class Mined(NamedTuple):
    """What some scans gave, of all processes.

    Attributes:
        turn: the one after them.
        places: patches without foreground about false lesions, with the wrongly marked voxels in their effective
            region.
        scans: how many were predicted.
        false_lesions: how many they had, those without a patch too.
    """

    turn: int
    places: dict[Place, int]
    scans: int
    false_lesions: int


class ScanMining:
    """Predict a few training scans whole and remember the patches about their false lesions.

    :class:`rarevox.pipeline.training.validation.Validation` asks for it after each validation but the last. The scans
    come in turn, those that have patches without foreground. A false lesion is a component, over faces, edges and
    corners, of what is marked that touches no annotated voxel (:func:`false_lesions`). Of each scan the largest are
    taken; about each lies the patch without foreground that has it nearest to its middle, and joins the hard patches
    with the wrongly marked voxels in its effective region as its score. A false lesion all of whose patches hold
    foreground gives none.

    It costs the prediction of ``scans`` scans each time, which takes as long as several steps each. Of several
    processes each predicts its share, and all take what all have found.

    Args:
        hard: takes the patches.
        scans: how many each time, of all processes together; 0 is none.
        inferer: predicts a scan, (1, C, *spatial): class indices, or scores.
        network: whose predictions are looked at; the validated one.
        nested: whether scores are those of nested regions.
        most: false lesions of a scan that give a patch.

    Raises:
        ValueError: a number below 0, or scans where no hard patches are drawn.
    """

    def __init__(
        self,
        hard: HardPatches,
        *,
        scans: int = 0,
        inferer: Callable[[torch.Tensor, torch.nn.Module], torch.Tensor],
        network: torch.nn.Module,
        nested: bool = False,
        most: int = 16,
    ) -> None:
        if scans < 0 or most < 1:
            raise ValueError(f"scans is {scans} and most is {most}; expected 0 or more, and 1 or more")
        if scans > 0 and hard.share == 0:
            raise ValueError(f"scans is {scans}, but no hard patches are drawn; set hard_share too")
        self.hard = hard
        self.scans = scans
        self.inferer, self.network, self.nested = inferer, network, nested
        self.most = most
        self.turn = 0

    @functools.cached_property
    def cases(self) -> list[int]:
        """The positions of the cases that have patches without foreground."""
        data = self.hard.dataset.data
        return [number for number in range(len(data)) if len(self._index(data[number]).background)]

    def _due(self) -> list[int]:
        """The cases whose turn it is."""
        turns = range(self.turn, self.turn + min(self.scans, len(self.cases)))
        return [self.cases[turn % len(self.cases)] for turn in turns]

    def voxels(self) -> int:
        """Of the scans whose turn it is."""
        data = self.hard.dataset.data
        return sum(voxels_to_compute(self.inferer, data[case][Keys.IMAGE].shape[1:]) for case in self._due())

    def look(self, device: torch.device | str, stopped: Callable[[], bool] = lambda: False) -> Mined:
        """Predict the scans whose turn it is; nothing is remembered until :meth:`take`.

        Args:
            device: the network's.
            stopped: is asked before each scan; where it says so, the rest is left out.
        """
        due = self._due()
        found: dict[Place, int] = {}
        scans = lesions = 0
        for case in due[processes.rank() :: processes.count()]:
            if stopped():
                break
            count, starts = self._mine(self.hard.dataset.data[case], torch.device(device))
            found |= {(case, start): score for start, score in starts.items()}
            scans, lesions = scans + 1, lesions + count
        every = processes.gather((found, scans, lesions))
        places = {place: score for one, _, _ in every for place, score in one.items()}
        return Mined(self.turn + len(due), places, sum(one for _, one, _ in every), sum(one for _, _, one in every))

    def take(self, mined: Mined) -> dict[str, int]:
        """Remember what was found.

        Returns:
            ``scans``, their ``false_lesions``, and of the ``patches`` about them how many are now remembered.
        """
        self.hard.add(mined.places)
        self.turn = mined.turn
        kept = sum(place in self.hard.scores for place in mined.places)
        return {"scans": mined.scans, "false_lesions": mined.false_lesions, "patches": kept}

    def _index(self, case: Any) -> MixedIndex:
        assert self.hard.dataset.patch is not None
        index: MixedIndex = case[self.hard.dataset.patch.index_key]
        return index

    def _mine(self, case: Any, device: torch.device) -> tuple[int, dict[tuple[int, ...], int]]:
        """How many false lesions, and the score of each start about the largest."""
        assert self.hard.dataset.patch is not None
        frame, starts = self.hard.dataset.patch.frame, self._index(case).background
        labels = plain(case[Keys.LABEL])[0].cpu().numpy()
        marked = self._predict(plain(case[Keys.IMAGE]), device) != 0
        wrong = marked & (labels == 0)
        count, middles = false_lesions(marked, labels, self.most)
        found: dict[tuple[int, ...], int] = {}
        for voxel in middles:
            wanted = [v - e // 2 - m for v, e, m in zip(voxel, frame.effective, frame.margin, strict=True)]
            start = starts.nearest(wanted, frame.around(voxel, labels.shape))
            if start is not None:
                seen = zip(start, frame.margin, frame.effective, strict=True)
                found[start] = int(wrong[tuple(slice(max(s + m, 0), s + m + e) for s, m, e in seen)].sum())
        return count, found

    def _predict(self, image: torch.Tensor, device: torch.device) -> np.ndarray:
        """Class indices (*spatial), as a validation would have them."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                scores = self.inferer(image[None].to(device, torch.float32), self.network)
        finally:
            self.network.train(training)
        return classes_of(scores, nested=self.nested)[0, 0].cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        self.turn = int(state["turn"])


def false_lesions(marked: np.ndarray, labels: np.ndarray, most: int | None = None) -> tuple[int, list[tuple[int, ...]]]:
    """The components of what is marked that touch no annotated voxel: how many, and of the ``most`` largest the voxel
    nearest to the centroid, the largest first.

    Neighbours share a face, an edge or a corner. Voxels that nobody annotated are not marked.

    Args:
        marked: (*spatial), true where the network calls a voxel foreground.
        labels: (*spatial), class indices of the reference.
        most: None is all.

    >>> false_lesions(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1]) > 0, np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
    (2, [(7,), (10,)])
    """
    known = ~is_ignored(labels)
    reference = (labels != 0) & known
    # Of the marked and the annotated voxels together, the components without annotated ones touch none.
    everywhere = np.ones((3,) * labels.ndim, bool)
    components, count = ndimage.label((marked & known) | reference, structure=everywhere)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    sizes[np.unique(components[reference])] = 0
    false = int(np.count_nonzero(sizes))
    boxes = ndimage.find_objects(components)
    largest_first = np.argsort(-sizes, kind="stable")[: false if most is None else min(false, most)]
    return false, [_middle(components, boxes[number - 1], number) for number in largest_first]


def _middle(components: np.ndarray, box: Sequence[slice], number: int) -> tuple[int, ...]:
    voxels = np.argwhere(components[tuple(box)] == number) + [part.start for part in box]
    nearest = ((voxels - voxels.mean(0)) ** 2).sum(1).argmin()
    return tuple(map(int, voxels[nearest]))
