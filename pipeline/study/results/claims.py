"""The claims of the paper, where it makes them, and the rule that judges each."""

from __future__ import annotations

from rarevox.pipeline.study.results import rules, setting_rules
from rarevox.pipeline.study.results.outcomes import Results
from rarevox.pipeline.study.results.paper import LOSSES, NETWORKS_2D, NETWORKS_3D
from rarevox.pipeline.study.results.trained import MARGIN, TRAINED, UNTRAINED
from rarevox.pipeline.study.results.verdict import Claim, Verdict, verdict_on

_ALL = (*NETWORKS_2D, *NETWORKS_3D)
_MARGIN, _STRONG, _MILD = f"{MARGIN}", f"{rules.STRONG:.0%}", f"{rules.MILD:.0%}"
_UNTRAINED = f"untrained (under {UNTRAINED}, or not {MARGIN} ahead of every voxel marked)"


def verdicts(results: Results) -> list[Verdict]:
    """What a study says of every claim, in the order of ``CLAIMS``."""
    return [verdict_on(claim, results) for claim in CLAIMS]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        text="WCE does not train HighResNet under strong imbalance",
        source="3D results",
        rule=f"In the settings with at most {_STRONG} of foreground in which another loss reaches {TRAINED}: "
        f"holds if WCE stays {_UNTRAINED} in nine of ten, does not if it comes to half of the best in most.",
        judge=rules.wce_does_not_train,
        networks=("HighResNet",),
        losses=("WCE",),
        varied=(),
    ),
    Claim(
        text="GDLv is the most robust over learning rate and patch size",
        source="2D and 3D results, discussion",
        rule=f"Robustness is the share of cells above half of the best of their network (a cell that is not {MARGIN} "
        "ahead of every voxel marked is above nothing). Holds if GDLv's exceeds every "
        f"other loss's by more than {_MARGIN}, does not if another's exceeds GDLv's by more than that.",
        judge=rules.gdl_is_most_robust,
        networks=_ALL,
        losses=("GDLv", "SS"),
        figure="robustness",
    ),
    Claim(
        text="GDLv is the most robust on the held-out cases of HighResNet too",
        source="3D test set",
        rule="As above, of the mean Dice of HighResNet's held-out cases. The paper says so, draws the figures, and "
        "states no number.",
        judge=rules.gdl_is_most_robust,
        networks=("HighResNet",),
        losses=("GDLv", "SS"),
        on_test=True,
        figure="held-out",
    ),
    Claim(
        text="On the held-out cases of HighResNet the losses differ less where the samples are less unbalanced",
        source="3D test set",
        rule="The range of the mean Dice over the losses that the paper draws (all but WCE): holds if it is at most "
        f"half as large, and smaller by {MARGIN}, at the patch with the most foreground than at that with the least, "
        "does not if it is not smaller. The paper states no number.",
        judge=setting_rules.losses_differ_less_when_less_unbalanced,
        networks=("HighResNet",),
        losses=("DL2", "SS", "GDLv"),
        varied=("patch",),
        only_losses=True,
        on_test=True,
        figure="held-out",
    ),
    Claim(
        text="SS falls behind GDLv in 3D",
        source="3D results",
        rule=f"On HighResNet, setting by setting: holds if the median of GDLv − SS is {_MARGIN} or more with p < 0.05 "
        "(Wilcoxon), does not if it is 0 or less.",
        judge=rules.ss_falls_behind,
        networks=("HighResNet",),
        losses=("SS", "GDLv"),
        varied=(),
        figure="ranks",
    ),
    Claim(
        text="DeepMedic depends on the patch more than on the loss",
        source="3D results",
        rule="Holds if the range of the mean Dice over patches is at least twice that over losses and at least "
        f"{2 * MARGIN}, does not if the range over losses is the larger.",
        judge=setting_rules.patch_matters_more_than_loss,
        networks=("DeepMedic",),
        losses=LOSSES,
        varied=("patch",),
    ),
    Claim(
        text="DL2 does as GDLv at low learning rates and fails at the fastest",
        source="3D results",
        rule=f"On HighResNet: holds if the median of GDLv − DL2 below the fastest rate is within {_MARGIN} and DL2 "
        f"stays {_UNTRAINED} more often at it, does not if either is the other way round.",
        judge=rules.dl2_fails_at_fast_rates,
        networks=("HighResNet",),
        losses=("DL2", "GDLv"),
    ),
    Claim(
        text="WCE and DL2 cope less with the fastest learning rate on TwoPathCNN than SS and GDLv",
        source="2D results",
        rule=f"Holds if both stay {_UNTRAINED} in a larger share of cells at it than either of "
        "the others, does not if neither does.",
        judge=rules.wce_and_dl2_fail_at_fast_rates,
        networks=("TwoPathCNN",),
        losses=LOSSES,
    ),
    Claim(
        text="How well SS does depends on the network more than with the other losses",
        source="2D results",
        rule="By how much the share of cells above half of the best differs between UNet and TwoPathCNN: holds if by "
        f"more than {_MARGIN} above any other loss's, does not if another's is above SS's by more than that.",
        judge=rules.ss_depends_on_the_network,
        networks=NETWORKS_2D,
        losses=LOSSES,
        every_network=True,
    ),
    Claim(
        text="The middle learning rate trains best in 2D",
        source="2D results",
        rule=f"Holds if its mean Dice is ahead of every other rate's by {_MARGIN} or more, does not if behind by that.",
        judge=setting_rules.middle_rate_is_best,
        networks=NETWORKS_2D,
        losses=LOSSES,
    ),
    Claim(
        text="The middle learning rate trains best in most cases",
        source="2D and 3D results",
        rule=f"Of the settings of network, patch and loss in which a rate reaches {TRAINED}: holds if the middle rate "
        "is the best (or as good) in more than half, does not if in a third or fewer, as by chance.",
        judge=setting_rules.middle_rate_is_mostly_best,
        networks=_ALL,
        losses=LOSSES,
    ),
    Claim(
        text="Over the patches the losses follow the same pattern",
        source="2D results",
        rule="Kendall's W of the losses' rankings of the patches at the middle rate (1: all alike): holds from "
        f"{setting_rules.ALIKE} on every network, does not up to {setting_rules.CHANCE:.2f} on every network.",
        judge=setting_rules.losses_order_the_patches_alike,
        networks=NETWORKS_2D,
        losses=LOSSES,
    ),
    Claim(
        text="The slowest learning rate reaches no plateau of the loss in 3D",
        source="3D results",
        rule="The loss still falls where Spearman's rank correlation with the iteration is below 0 over the last "
        "quarter (p < 0.05): holds if so in more than half of the cells at the slowest rate, and more often than at "
        "the middle one, does not if in a quarter or fewer. The paper states no number.",
        judge=setting_rules.slowest_rate_has_no_plateau,
        networks=NETWORKS_3D,
        losses=LOSSES,
        varied=("lr",),
    ),
    Claim(
        text="Learning rates matter more with smaller patches in 3D",
        source="3D results",
        rule="The range of the mean Dice over the rates at the smallest patch less that at the largest: holds if it is "
        f"{MARGIN} or more in the mean over the networks and on none below −{MARGIN}, does not if above 0 on none.",
        judge=setting_rules.rates_matter_more_for_small_patches,
        networks=NETWORKS_3D,
        losses=LOSSES,
    ),
    Claim(
        text="At the middle learning rate smaller patches in larger batches do better",
        source="2D and 3D results",
        rule=f"Holds if the smallest patch is ahead of the largest by {_MARGIN} or more on every network, does not if "
        "on none.",
        judge=setting_rules.smaller_patches_are_better,
        networks=_ALL,
        losses=LOSSES,
    ),
    Claim(
        text="A mild imbalance is well handled by most losses",
        source="Discussion",
        rule=f"With {_MILD} of foreground or more a loss handles it that comes above half of the best in three "
        "quarters of the cells: holds if more than half of the losses do, does not if fewer.",
        judge=rules.mild_imbalance_is_handled,
        networks=_ALL,
        losses=LOSSES,
        varied=(),
        figure="robustness",
    ),
    Claim(
        text="Under strong imbalance the losses based on overlap are the more robust",
        source="Discussion",
        rule=f"With {_STRONG} of foreground or less: holds if the mean Dice of DL2 and of GDLv exceeds that of WCE and "
        f"of SS by {_MARGIN} or more, does not if the lower of the first is not above the higher of the second.",
        judge=rules.overlap_is_better_when_strong,
        networks=_ALL,
        losses=LOSSES,
        varied=(),
        figure="robustness",
    ),
)
