"""What schedules, gradient logs and steps of two terms ask of the loss."""

from __future__ import annotations

from rarevox.losses import CombinedLoss
from rarevox.pipeline.errors import RequestError


def require_two_terms(loss: object, purpose: str) -> CombinedLoss:
    """``loss`` if it has two terms and a share α between them (:class:`rarevox.losses.CombinedLoss`).

    Args:
        loss: of the configuration.
        purpose: what needs the terms, the beginning of the message.

    Raises:
        RequestError: it has one term only.

    >>> from rarevox.losses import DiceCELoss
    >>> require_two_terms(DiceCELoss(), "a loss schedule").alpha
    0.5
    """
    if not isinstance(loss, CombinedLoss):
        raise RequestError(
            f"{purpose} needs a loss of two terms, and {type(loss).__name__} has one; choose --loss gdl_ce, dice_ce, "
            "dice_topk or dice_focal, or a rarevox.losses.CombinedLoss of your own"
        )
    return loss
