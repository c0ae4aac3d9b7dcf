"""One table of sums, and every loss as arithmetic on it."""

from rarevox.losses.combined import CombinedLoss
from rarevox.losses.component_dice_ce import ComponentDiceCELoss
from rarevox.losses.cross_entropy import CrossEntropyLoss
from rarevox.losses.dice import DiceLoss
from rarevox.losses.dice_ce import DiceCELoss
from rarevox.losses.dice_focal import DiceFocalLoss
from rarevox.losses.dice_topk import DiceTopKLoss
from rarevox.losses.gdl import GeneralizedDiceLoss
from rarevox.losses.gdl_ce import GeneralizedDiceCELoss
from rarevox.losses.hard import confusion, hard_sums
from rarevox.losses.sensitivity_specificity import SensitivitySpecificityLoss
from rarevox.losses.sums.checks import NonFiniteLogitsError
from rarevox.losses.sums.overlap import overlap_sums
from rarevox.losses.sums.table import Columns, SumTable
from rarevox.losses.table_loss import TableLoss
from rarevox.losses.tversky import FocalTverskyLoss, TverskyLoss
from rarevox.losses.two_class_dice import TwoClassDiceLoss
from rarevox.losses.weighted_cross_entropy import WeightedCrossEntropyLoss

__all__ = [
    "Columns",
    "CombinedLoss",
    "ComponentDiceCELoss",
    "CrossEntropyLoss",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DiceTopKLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceCELoss",
    "GeneralizedDiceLoss",
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
