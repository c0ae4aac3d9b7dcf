"""Losses for structures that fill a thousandth of a scan: ``loss(logits, labels, weight=None)``.

Most are a few lines of arithmetic on one table of sums, which `rarevox.losses.sums` makes:

    Loss                        how a loss is called, and its options
    ├── TableLoss               one formula on the table: Dice, generalised Dice, Tversky, cross-entropy …
    └── CombinedLoss            two terms and a share α between them: component-wise Dice and cross-entropy
        └── CombinedTableLoss   both terms on one table: Dice and cross-entropy, Dice and focal, Dice and top-k …

Logits are (B, C, *spatial), labels and weight (B, 1, *spatial): B samples, C classes, one to three spatial axes such as
D, H, W. `rarevox.losses.sums.table` lists all letters that shapes are written with.
"""

from rarevox.losses.combined import CombinedLoss
from rarevox.losses.combined_table import CombinedTableLoss
from rarevox.losses.component_dice_ce import ComponentDiceCELoss
from rarevox.losses.cross_entropy import CrossEntropyLoss
from rarevox.losses.dice import DiceLoss
from rarevox.losses.dice_ce import DiceCELoss
from rarevox.losses.dice_focal import DiceFocalLoss
from rarevox.losses.dice_topk import DiceTopKLoss
from rarevox.losses.gdl import GeneralizedDiceLoss
from rarevox.losses.gdl_ce import GeneralizedDiceCELoss
from rarevox.losses.hard import confusion, hard_sums
from rarevox.losses.loss import Loss
from rarevox.losses.sensitivity_specificity import SensitivitySpecificityLoss
from rarevox.losses.sums import Columns, NonFiniteLogitsError, SumTable, overlap_sums
from rarevox.losses.table_loss import TableLoss
from rarevox.losses.tversky import FocalTverskyLoss, TverskyLoss
from rarevox.losses.two_class_dice import TwoClassDiceLoss
from rarevox.losses.weighted_cross_entropy import WeightedCrossEntropyLoss

__all__ = [
    "Columns",
    "CombinedLoss",
    "CombinedTableLoss",
    "ComponentDiceCELoss",
    "CrossEntropyLoss",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DiceTopKLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceCELoss",
    "GeneralizedDiceLoss",
    "Loss",
    "NonFiniteLogitsError",
    "SensitivitySpecificityLoss",
    "SumTable",
    "TableLoss",
    "TverskyLoss",
    "TwoClassDiceLoss",
    "WeightedCrossEntropyLoss",
    "confusion",
    "hard_sums",
    "overlap_sums",
]
