"""What each loss says about ten telling predictions; writes docs/losses/cases.md beside this file.

python docs/losses/cases.py            write the table
python docs/losses/cases.py --check    exit 1 where the table on disk is not what the losses say
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from rarevox import losses
from rarevox.transforms import component_regions

PAGE = Path(__file__).with_name("cases.md")
SIDE = 24
# The network is sure: p = 0.999 for the class that it names.
LOGIT = math.log(999) / 2

LOSSES = {
    "GDL": losses.GeneralizedDiceLoss(),
    "GDL, simple": losses.GeneralizedDiceLoss(weighting="simple"),
    "GDL, uniform": losses.GeneralizedDiceLoss(weighting="uniform"),
    "DL2": losses.TwoClassDiceLoss(),
    "Dice": losses.DiceLoss(),
    "Dice, squared": losses.DiceLoss(squared=True),
    "SS": losses.SensitivitySpecificityLoss(),
    "Tversky": losses.TverskyLoss(),
    "Focal Tversky": losses.FocalTverskyLoss(),
    "CE": losses.CrossEntropyLoss(),
    "WCE": losses.WeightedCrossEntropyLoss(),
    "Dice + CE": losses.DiceCELoss(),
    "GDL + CE": losses.GeneralizedDiceCELoss(),
    "Dice + TopK": losses.DiceTopKLoss(),
    "Dice + focal": losses.DiceFocalLoss(),
    "Components": losses.ComponentDiceCELoss(),
}


def block(*corners_and_sides: tuple[int, int]) -> Tensor:
    """A label map (1, 1, 24, 24, 24) with cubes given by (corner along every axis, side)."""
    labels = torch.zeros(1, 1, SIDE, SIDE, SIDE, dtype=torch.int64)
    for corner, side in corners_and_sides:
        labels[0, 0, corner : corner + side, corner : corner + side, corner : corner + side] = 1
    return labels


def cases() -> dict[str, tuple[Tensor, Tensor]]:
    """(reference, prediction) of each case, by its name."""
    structure, nothing, everything = block((8, 4)), block(), torch.ones_like(block())
    one_missed, one_false, shifted = structure.clone(), structure.clone(), structure.roll(1, 2)
    one_missed[0, 0, 8, 8, 8] = 0
    one_false[0, 0, 20, 20, 20] = 1
    return {
        "all right": (structure, structure),
        "one voxel of 64 missed": (structure, one_missed),
        "one voxel too many": (structure, one_false),
        "shifted by one voxel": (structure, shifted),
        "structure missed": (structure, nothing),
        "everything called structure": (structure, everything),
        "small lesion (8) missed, large (512) found": (block((2, 2), (12, 8)), block((12, 8))),
        "empty reference, nothing predicted": (nothing, nothing),
        "empty reference, 64 voxels predicted": (nothing, structure),
        "empty reference, everything predicted": (nothing, everything),
    }


def value(loss: losses.Loss, reference: Tensor, prediction: Tensor) -> float:
    """The loss of a prediction with p = 0.999."""
    logits = LOGIT * torch.cat((1.0 - 2 * prediction, 2.0 * prediction - 1), 1).double()
    if loss.needs_regions:
        reference = torch.cat((reference, component_regions(reference[0], num_classes=2)[None]), 1)
    return loss(logits, reference).item()


def page() -> str:
    """The page as Markdown."""
    names = list(cases())
    lines = [
        "# Ten telling cases",
        "",
        "Written by `docs/losses/cases.py`. Two classes, a volume of 24³ voxels, a structure of 4³ = 64 voxels",
        "(0.46 %) unless the case says otherwise, and a network that is sure of itself: p = 0.999 for the class that",
        "it names.",
        "Every loss with its defaults. A loss is as good as the differences between its rows: read down a column.",
        "",
    ]
    for number, name in enumerate(names, start=1):
        lines.append(f"{number}. {name}")
    lines += [
        "",
        "| loss | " + " | ".join(str(i + 1) for i in range(len(names))) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for name, loss in LOSSES.items():
        row = (f"{value(loss, *case):.4f}" for case in cases().values())
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join([*lines, "", *READING]) + "\n"


READING = [
    "What the table shows:",
    "",
    "- Case 5: a structure that is missed costs 0.99 with GDL and about 0.5 with the Dice losses (the background is",
    "  right), but 0.05 with SS, 0.03 with cross-entropy and 0.006 with uniform GDL, which can all but ignore it.",
    "- Cases 5 and 6: WCE finds it cheaper to call everything structure than to miss it, as its weight follows the",
    "  prediction: it is large once nothing is predicted and vanishes once everything is.",
    "- Case 7: only the component-wise loss is troubled much by a lesion of 8 voxels missed beside one of 512.",
    "- Cases 8 to 10: with an empty reference every loss grows with the volume falsely claimed, from nearly nothing.",
]


def main() -> None:
    """Write the page or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the page on disk, write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.name} is not what the losses say; run {Path(__file__).name} again")


if __name__ == "__main__":
    main()
