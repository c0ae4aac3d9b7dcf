"""What the network marks in whole training scans where there is nothing: hard patches where no draw has looked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils.enums import CommonKeys as Keys
from scipy import ndimage

from rarevox.pipeline.training import processes
from rarevox.pipeline.training.dice_metric import classes_of
from rarevox.pipeline.training.draws.hard_patches import HardPatches
from rarevox.pipeline.training.draws.patch_dataset import Place, plain
from rarevox.transforms.labels import is_ignored
from rarevox.transforms.sampling.background import MixedIndex


class ScanMining:
    """Predict a few training scans whole and remember the patches about their false lesions.

    :class:`rarevox.pipeline.training.Validation` asks for it after each validation but the last. The scans come in
    turn. A false lesion is a component, over faces, edges and corners, of what is marked that touches no annotated
    voxel (:func:`false_lesions`). Of each scan the largest are taken; about each lies the patch without foreground that
    has it nearest to its middle, and joins the hard patches with the wrongly marked voxels in its effective region as
    its score. A false lesion all of whose patches hold foreground gives none.

    It costs the prediction of ``scans`` scans each time, which takes as long as several steps each.

    Args:
        hard: takes the patches.
        scans: how many each time, of all processes together; 0 is none.
        inferer: predicts a scan, (1, C, *spatial): class indices, or scores.
        network: whose predictions are looked at; the validated one.
        nested: whether scores are those of nested regions.
        most: false lesions of a scan.

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

    def __call__(self, device: torch.device | str, stopped: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Mine the scans whose turn it is; what a signal cuts short leaves everything as it was.

        Args:
            device: the network's.
            stopped: is asked before each scan.

        Returns:
            Of all processes together: ``scans``, their ``false_lesions``, and the ``patches`` that were remembered.
        """
        data = self.hard.dataset.data
        turns = range(self.turn + processes.rank(), self.turn + min(self.scans, len(data)), processes.count())
        found: dict[Place, int] = {}
        told = {"scans": 0, "false_lesions": 0, "patches": 0}
        for turn in turns:
            if stopped():
                break
            case = turn % len(data)
            lesions, patches = self._mine(data[case], torch.device(device))
            found |= {(case, start): score for start, score in patches.items()}
            told = {"scans": told["scans"] + 1, "false_lesions": told["false_lesions"] + lesions, "patches": len(found)}
        every = processes.gather(told)
        if not processes.agree(stopped()):
            self.hard.add(found)
            self.turn += min(self.scans, len(data))
        return {key: sum(one[key] for one in every) for key in told}

    def _mine(self, case: Any, device: torch.device) -> tuple[int, dict[tuple[int, ...], int]]:
        """How many false lesions, and the score of each start about the largest."""
        patch = self.hard.dataset.patch
        assert patch is not None
        index: MixedIndex = case[patch.index_key]
        labels = plain(case[Keys.LABEL])[0].cpu().numpy()
        marked = self._predict(plain(case[Keys.IMAGE]), device) != 0
        wrong = marked & (labels == 0)
        middles = false_lesions(marked, labels)
        found: dict[tuple[int, ...], int] = {}
        for voxel in middles[: self.most]:
            wanted = [v - e // 2 - m for v, e, m in zip(voxel, patch.frame.effective, patch.frame.margin, strict=True)]
            start = index.background.nearest(wanted, patch.frame.around(voxel, labels.shape))
            if start is not None:
                seen = zip(start, patch.frame.margin, patch.frame.effective, strict=True)
                found[start] = int(wrong[tuple(slice(max(s + m, 0), s + m + e) for s, m, e in seen)].sum())
        return len(middles), found

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


def false_lesions(marked: np.ndarray, labels: np.ndarray) -> list[tuple[int, ...]]:
    """The components of what is marked that touch no annotated voxel, by the voxel of each nearest to its centroid, the
    largest first.

    Neighbours share a face, an edge or a corner. Voxels that nobody annotated are not marked.

    Args:
        marked: (*spatial), true where the network calls a voxel foreground.
        labels: (*spatial), class indices of the reference.

    >>> false_lesions(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1]) > 0, np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
    [(7,), (10,)]
    """
    known = ~is_ignored(labels)
    reference = (labels != 0) & known
    # Of the marked and the annotated voxels together, the components without annotated ones touch none.
    everywhere = np.ones((3,) * labels.ndim, bool)
    components, count = ndimage.label((marked & known) | reference, structure=everywhere)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    sizes[np.unique(components[reference])] = 0
    boxes = ndimage.find_objects(components)
    largest_first = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    return [_middle(components, boxes[number - 1], number) for number in largest_first]


def _middle(components: np.ndarray, box: Sequence[slice], number: int) -> tuple[int, ...]:
    voxels = np.argwhere(components[tuple(box)] == number) + [part.start for part in box]
    nearest = ((voxels - voxels.mean(0)) ** 2).sum(1).argmin()
    return tuple(map(int, voxels[nearest]))
