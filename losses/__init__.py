"""One table of sums, and every loss as arithmetic on it."""

from losses.checks import NonFiniteLogitsError
from losses.combined import CombinedLoss
from losses.component_dice_ce import ComponentDiceCELoss
from losses.cross_entropy import CrossEntropyLoss
from losses.dice import DiceLoss
from losses.dice_ce import DiceCELoss
from losses.dice_focal import DiceFocalLoss
from losses.dice_topk import DiceTopKLoss
from losses.gdl import GeneralizedDiceLoss
from losses.gdl_ce import GeneralizedDiceCELoss
from losses.hard import confusion, hard_sums
from losses.overlap import overlap_sums
from losses.sensitivity_specificity import SensitivitySpecificityLoss
from losses.sum_table import Columns, SumTable
from losses.table_loss import TableLoss
from losses.tversky import FocalTverskyLoss, TverskyLoss
from losses.two_class_dice import TwoClassDiceLoss
from losses.weighted_cross_entropy import WeightedCrossEntropyLoss

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
