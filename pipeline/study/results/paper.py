"""What the paper states: tables 1 to 3 of Sudre et al., Generalised Dice overlap as a deep learning loss function for
highly unbalanced segmentations, DLMIA 2017."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rarevox.pipeline.study.results.outcomes import Outcome, Results, value_of

LOSSES = ("WCE", "DL2", "SS", "GDLv")
PATCHES = ("S", "M", "L")
RATES = ("1e-5", "1e-4", "1e-3")
BATCHES = (5, 3, 1)
NETWORKS_2D, NETWORKS_3D = ("UNet", "TwoPathCNN"), ("DeepMedic", "HighResNet")

LOSS_NAMES = {"wce": "WCE", "dl2": "DL2", "ss": "SS", "gdl": "GDLv", "gdlv": "GDLv"}
"""The paper's name of an overlay of ``configs/losses``."""
_NETWORK_STEMS = {"unet": "UNet", "twopathcnn": "TwoPathCNN", "deepmedic": "DeepMedic", "highresnet": "HighResNet"}
_PATCH_NAMES = {"s": "S", "small": "S", "m": "M", "moderate": "M", "medium": "M", "l": "L", "large": "L"}


@dataclass(frozen=True)
class Setting:
    """Table 1: patch sizes, batch and foreground share of one network at one sampling."""

    initial: int
    effective: int
    batch: int
    share: float


SETTINGS: Mapping[tuple[str, str], Setting] = {
    (network, patch): Setting(initial, effective, batch, share)
    for network, columns in {
        "UNet": ((56, 16, 0.52), (64, 24, 0.33), (88, 48, 0.15)),
        "TwoPathCNN": ((51, 19, 0.29), (63, 31, 0.25), (85, 53, 0.16)),
        "DeepMedic": ((51, 3, 0.20), (63, 15, 0.01), (87, 39, 0.002)),
        "HighResNet": ((51, 15, 0.02), (63, 27, 0.01), (85, 49, 0.003)),
    }.items()
    for patch, batch, (initial, effective, share) in zip(PATCHES, BATCHES, columns, strict=True)
}

_TABLES = {
    NETWORKS_2D: """
        .71 .17 .73 .13 .37 .17 .75 .14   .56 .48  0   0  .53 .41 .49 .44
        .77 .18 .76 .13 .74 .16 .80 .12   .80 .12 .79 .11 .81 .12 .80 .12
        .70 .17 .72 .15 .39 .16 .72 .15    0   0   0   0  .77 .11 .72 .15
        .71 .23 .70 .22 .65 .25 .74 .19    0   0  .73 .18 .69 .21 .73 .19
        .73 .18 .70 .22 .61 .25 .72 .19   .77 .16 .76 .17 .71 .18 .76 .17
        .68 .23 .67 .21 .70 .26 .69 .22    0   0  .71 .22 .67 .21 .72 .19
        .63 .46 .62 .40 .49 .42 .56 .44   .62 .50 .50 .41 .50 .38 .56 .35
        .68 .34 .64 .44 .18 .24 .66 .39   .64 .42 .59 .43 .52 .38 .64 .35
        .59 .39 .57 .53 .16 .22 .59 .45   .77 .12 .77 .14 .79 .12 .79 .11""",
    NETWORKS_3D: """
        .49 .17 .44 .19 .42 .14 .46 .17    0   0   0   0  .06 .15 .47 .32
        .58 .20 .60 .15 .61 .22 .61 .18    0   0  .71 .18 .34 .20 .74 .15
        .61 .12 .59 .14 .63 .15 .60 .15    0   0   0   0   0   0   0   0
        .05 .07 .05 .07 .05 .06 .04 .06    0   0  .60 .27 .15 .13 .64 .19
        .09 .11 .07 .09 .08 .09 .08 .10    0   0  .71 .20 .20 .20 .69 .20
        .45 .31 .42 .31 .17 .24 .48 .32    0   0   0   0   0   0  .65 .23
        .01 .03 .01 .03 .01 .03 .01 .03    0   0  .54 .27 .03 .06 .50 .32
        .01 .04 .02 .04 .02 .04 .01 .04    0   0  .57 .32 .08 .19 .60 .30
        .21 .33 .18 .30 .05 .12 .20 .33    0   0  .62 .18 .22 .15 .49 .34""",
}


def _dice() -> dict[tuple[str, str, str, str], tuple[float, float]]:
    """Tables 2 and 3 by (network, patch, loss, rate)."""
    found = {}
    for networks, text in _TABLES.items():
        numbers = iter(map(float, text.split()))
        for patch in PATCHES:
            for rate in RATES:
                for network in networks:
                    for loss in LOSSES:
                        found[network, patch, loss, rate] = (next(numbers), next(numbers))
    return found


DICE: Mapping[tuple[str, str, str, str], tuple[float, float]] = _dice()
"""Tables 2 and 3: (network, patch, loss, rate) → median and interquartile range of the training Dice."""


def network_name(label: str) -> str:
    """The paper's name of a network; empty for one that the paper does not have.

    >>> network_name("highresnet_paper"), network_name("unet2d"), network_name("HighResNet"), network_name("segresnet")
    ('HighResNet', 'UNet', 'HighResNet', '')
    """
    stem = label.lower().replace("-", "_")
    return next((name for key, name in _NETWORK_STEMS.items() if stem.startswith(key)), "")


def loss_name(label: str) -> str:
    """The paper's name of a loss; empty for one that the paper does not have.

    >>> loss_name("gdl"), loss_name("wce"), loss_name("dice_ce")
    ('GDLv', 'WCE', '')
    """
    return LOSS_NAMES.get(label.lower().replace("_", ""), "")


def shown_loss(label: str) -> str:
    """A loss as it is written in figures and tables: by the paper's name where it has one."""
    return loss_name(label) or label


def shown_network(label: str) -> str:
    """A network as it is written in figures and tables: by the paper's name where it has one."""
    return network_name(label) or label


def patch_name(label: str) -> str:
    """The paper's S, M or L; empty for another label.

    >>> patch_name("S"), patch_name("large"), patch_name("64")
    ('S', 'L', '')
    """
    return _PATCH_NAMES.get(label.lower(), "")


def stated(network: str, patch: str, loss: str, rate: str) -> tuple[float, float] | None:
    """The paper's median and interquartile range for a cell of a study; None where it has no such cell.

    >>> stated("highresnet_paper", "L", "gdl", "0.0001")
    (0.6, 0.3)
    """
    value = value_of(rate)
    named = next((text for text in RATES if abs(value - float(text)) <= 1e-6 * float(text)), "")
    return DICE.get((network_name(network), patch_name(patch), loss_name(loss), named))


def paper_results(networks: tuple[str, ...] = (*NETWORKS_2D, *NETWORKS_3D)) -> Results:
    """The paper's own tables as if they were a study's.

    >>> one = paper_results(("HighResNet",)).where(loss="GDLv", patch="S", lr="1e-4")[0]
    >>> one.dice, round(one.iqr, 2), one.patch, one.share
    (0.74, 0.15, 15.0, 0.02)
    """
    outcomes = []
    for (network, patch, loss, rate), (median, iqr) in DICE.items():
        if network in networks:
            labels = {"network": network, "patch": patch, "loss": loss, "lr": rate}
            setting = SETTINGS[network, patch]
            outcomes.append(
                Outcome(
                    f"{network}-{patch}-{loss}-{rate}",
                    labels,
                    state="done",
                    dice=median,
                    q1=median - iqr / 2,
                    q3=median + iqr / 2,
                    share=setting.share,
                    patch=float(setting.effective),
                    batch=float(setting.batch),
                )
            )
    axes = {"network": networks, "patch": PATCHES, "loss": LOSSES, "lr": RATES}
    return Results(axes, tuple(outcomes), dataset="the paper's", iterations="1000 in 2D, 3000 in 3D")
