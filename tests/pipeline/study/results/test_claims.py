"""The rules give the paper's claims on the paper's numbers, and not on numbers that say otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rarevox.pipeline.study.results.claims import CLAIMS, verdicts
from rarevox.pipeline.study.results.outcomes import Outcome, Results
from rarevox.pipeline.study.results.paper import NETWORKS_2D, NETWORKS_3D, paper_results
from rarevox.pipeline.study.results.verdict import FAILS, HOLDS, UNDECIDED, UNTESTED

ON_TEST = {claim.text for claim in CLAIMS if claim.on_test}
IN_2D = {
    "GDLv is the most robust over learning rate and patch size",
    "WCE and DL2 cope less with the fastest learning rate on TwoPathCNN than SS and GDLv",
    "How well SS does depends on the network more than with the other losses",
    "The middle learning rate trains best in 2D",
    "The middle learning rate trains best in most cases",
    "Over the patches the losses follow the same pattern",
    "At the middle learning rate smaller patches in larger batches do better",
    "A mild imbalance is well handled by most losses",
}
IN_3D = {
    "WCE does not train HighResNet under strong imbalance",
    "GDLv is the most robust over learning rate and patch size",
    "SS falls behind GDLv in 3D",
    "DeepMedic depends on the patch more than on the loss",
    "DL2 does as GDLv at low learning rates and fails at the fastest",
    "The middle learning rate trains best in most cases",
    "Learning rates matter more with smaller patches in 3D",
    "At the middle learning rate smaller patches in larger batches do better",
    "A mild imbalance is well handled by most losses",
    "Under strong imbalance the losses based on overlap are the more robust",
}


PLATEAU = "The slowest learning rate reaches no plateau of the loss in 3D"
MOST_ROBUST_ON_TEST = "GDLv is the most robust on the held-out cases of HighResNet too"
ALIKE_ON_TEST = "On the held-out cases of HighResNet the losses differ less where the samples are less unbalanced"


def words(results: Results) -> dict[str, str]:
    return {one.claim: one.verdict for one in verdicts(results)}


def changed(results: Results, change: Callable[[Outcome], Outcome]) -> Results:
    return replace(results, outcomes=tuple(map(change, results.outcomes)))


def relabelled(results: Results, role: str, names: dict[str, str]) -> Results:
    """As if the figures of one label had come from another."""
    return changed(
        results, lambda one: replace(one, labels={**one.labels, role: names.get(one.label(role), one.label(role))})
    )


@pytest.mark.parametrize(
    ("networks", "claims"),
    [(NETWORKS_2D, IN_2D), (NETWORKS_3D, IN_3D), ((*NETWORKS_2D, *NETWORKS_3D), IN_2D | IN_3D)],
)
def test_the_papers_own_numbers_give_the_papers_claims(networks: tuple[str, ...], claims: set[str]) -> None:
    found = words(paper_results(networks))
    assert {claim for claim, word in found.items() if word == HOLDS} == claims
    assert FAILS not in found.values()


def test_every_claim_is_held_by_some_table_or_is_about_held_out_cases() -> None:
    assert {claim.text for claim in CLAIMS} == IN_2D | IN_3D | ON_TEST | {PLATEAU}


def test_a_loss_that_still_falls_at_the_slowest_rate_alone_has_no_plateau() -> None:
    """Of 24 cells at each rate: all at 1e-5 and none at 1e-4; as many at both; none; and what was not recorded."""

    def said(slow: float, middle: float) -> str:
        at = {"1e-5": slow, "1e-4": middle, "1e-3": 0.5}
        return words(changed(paper_results(NETWORKS_3D), lambda one: replace(one, falling=at[one.label("lr")])))[
            PLATEAU
        ]

    assert [said(0.01, 0.5), said(0.01, 0.01), said(0.5, 0.5)] == [HOLDS, UNDECIDED, FAILS]
    assert said(float("nan"), 0.5) == UNDECIDED


def test_the_claim_on_held_out_cases_takes_their_figures() -> None:
    """HighResNet's training Dice as if they were of held-out cases: half of the best is 0.37. Of DL2, SS and GDLv the
    mean is 0.237, 0.133 and 0.403 at patch S, 0.577, 0.110 and 0.530 at L: ranges of 0.27 and 0.47, more than half.
    DeepMedic's cases, on which the losses are alike, are not what the paper speaks of.
    """
    results = changed(paper_results(NETWORKS_3D), lambda one: replace(one, test=one.dice, dice=0.5))
    found = {one.claim: one for one in verdicts(results)}
    assert (found[MOST_ROBUST_ON_TEST].verdict, found[ALIKE_ON_TEST].verdict) == (HOLDS, UNDECIDED)
    assert "GDLv 8 of 9, DL2 6 of 9, WCE 0 of 9 and SS 0 of 9" in found[MOST_ROBUST_ON_TEST].said
    assert "ranges over 0.27 at patch S (2.0% of foreground) and over 0.47 at patch L" in found[ALIKE_ON_TEST].said
    assert {MOST_ROBUST_ON_TEST, ALIKE_ON_TEST} == ON_TEST
    assert found["GDLv is the most robust over learning rate and patch size"].verdict == UNDECIDED
    deepmedic = replace(results, outcomes=tuple(results.where(network="DeepMedic")))
    assert {words(deepmedic)[claim] for claim in ON_TEST} == {UNTESTED}


def test_held_out_cases_on_which_the_losses_are_alike_with_the_small_patch() -> None:
    """The range at S shrunk to a third, 0.09, is less than half of that at L; WCE, which stays at 0, does not count."""
    shrunk = changed(
        paper_results(("HighResNet",)),
        lambda one: replace(one, test=one.dice / 3 if one.label("patch") == "S" else one.dice),
    )
    assert words(shrunk)[ALIKE_ON_TEST] == HOLDS


def test_on_held_out_cases_losses_that_differ_less_on_the_large_patch_are_seen() -> None:
    turned = changed(
        paper_results(("HighResNet",)),
        lambda one: replace(one, test=one.dice, share={"S": 0.003, "M": 0.01, "L": 0.02}[one.label("patch")]),
    )
    assert words(turned)[ALIKE_ON_TEST] == FAILS


@pytest.mark.parametrize(
    "names",
    [
        {"WCE": "GDLv", "GDLv": "WCE"},
        {"SS": "GDLv", "GDLv": "SS", "WCE": "DL2", "DL2": "WCE"},
        {"WCE": "DL2", "DL2": "SS", "SS": "GDLv", "GDLv": "WCE"},
    ],
)
def test_claims_on_losses_fall_with_other_names_of_the_losses(names: dict[str, str]) -> None:
    found = words(relabelled(paper_results(), "loss", names))
    assert found["GDLv is the most robust over learning rate and patch size"] == FAILS
    assert found["SS falls behind GDLv in 3D"] != HOLDS
    assert found["Under strong imbalance the losses based on overlap are the more robust"] != HOLDS


def test_wce_that_trains_is_seen_to_train() -> None:
    found = words(relabelled(paper_results(), "loss", {"WCE": "GDLv", "GDLv": "WCE"}))
    assert found["WCE does not train HighResNet under strong imbalance"] == FAILS


def test_claims_on_rates_fall_when_the_rates_are_turned() -> None:
    turned = {"1e-5": "1e-4", "1e-4": "1e-3", "1e-3": "1e-5"}
    found = words(relabelled(paper_results(), "lr", turned))
    assert found["The middle learning rate trains best in 2D"] == FAILS
    assert found["The middle learning rate trains best in most cases"] == FAILS
    assert found["DL2 does as GDLv at low learning rates and fails at the fastest"] != HOLDS
    assert found["WCE and DL2 cope less with the fastest learning rate on TwoPathCNN than SS and GDLv"] == FAILS


def test_claims_on_patches_fall_when_patch_and_loss_change_places() -> None:
    """DeepMedic's figures with the four losses as rows of patches: the largest spread is then that of the losses."""
    swapped = []
    for one in paper_results(("DeepMedic",)).outcomes:
        loss = {"S": "WCE", "M": "DL2", "L": "SS"}[one.label("patch")]
        patch = {"WCE": "S", "DL2": "M", "SS": "L", "GDLv": ""}[one.label("loss")]
        if patch:
            swapped.append(replace(one, labels={**one.labels, "loss": loss, "patch": patch}))
            if loss == "SS":
                swapped.append(replace(one, labels={**one.labels, "loss": "GDLv", "patch": patch}))
    found = words(replace(paper_results(("DeepMedic",)), outcomes=tuple(swapped)))
    assert found["DeepMedic depends on the patch more than on the loss"] == FAILS


def test_smaller_patches_are_not_better_where_the_sizes_are_turned_round() -> None:
    results = relabelled(paper_results(), "patch", {"S": "L", "L": "S"})
    sizes = {"S": 15.0, "M": 27.0, "L": 49.0}
    results = changed(results, lambda one: replace(one, patch=sizes[one.label("patch")]))
    assert words(results)["At the middle learning rate smaller patches in larger batches do better"] == FAILS
    assert words(results)["Learning rates matter more with smaller patches in 3D"] == FAILS


def test_losses_that_order_the_patches_each_in_its_own_way_have_no_pattern() -> None:
    """S, M, L in the orders 123, 231, 312 and all alike: the rank sums are 8 each, so Kendall's W is 0."""
    orders = {"WCE": (0.7, 0.5, 0.3), "DL2": (0.3, 0.7, 0.5), "SS": (0.5, 0.3, 0.7), "GDLv": (0.5, 0.5, 0.5)}
    results = changed(
        paper_results(NETWORKS_2D),
        lambda one: replace(one, dice=orders[one.label("loss")]["SML".index(one.label("patch"))]),
    )
    (found,) = [one for one in verdicts(results) if one.claim == "Over the patches the losses follow the same pattern"]
    assert found.verdict == FAILS and "0.00 on UNet and 0.00 on TwoPathCNN" in found.said


def test_who_marks_every_voxel_is_neither_trained_nor_robust() -> None:
    """2D patches of 52 to 15 % of foreground: all of it marked has the Dice 0.68, 0.50 and 0.26 on UNet, 0.45, 0.40 and
    0.28 on TwoPathCNN, which is above half of the best, 0.81 on both, at three of the six patches: 9 of 18 cells.
    """

    def marked(one: Outcome) -> Outcome:
        constant = 2 * one.share / (1 + one.share)
        return replace(one, constant=constant, dice=constant if one.label("loss") == "WCE" else one.dice)

    blind = changed(paper_results(NETWORKS_2D), lambda one: replace(marked(one), constant=float("nan")))
    seen = changed(paper_results(NETWORKS_2D), marked)
    plain, wary = ({one.claim: one.said for one in verdicts(results)} for results in (blind, seen))
    claim = "A mild imbalance is well handled by most losses"
    assert "WCE 9 of 18" in plain[claim] and "WCE 0 of 18" in wary[claim]
    rate = "WCE and DL2 cope less with the fastest learning rate on TwoPathCNN than SS and GDLv"
    assert "WCE 0 of 3" in plain[rate] and "WCE 3 of 3" in wary[rate]


def test_wce_that_marks_every_voxel_has_not_trained() -> None:
    """All at 0.5, of which marking every voxel has 0.48 with WCE and 0.2 else."""
    results = changed(
        paper_results(("HighResNet",)),
        lambda one: replace(one, dice=0.5, constant=0.48 if one.label("loss") == "WCE" else 0.2),
    )
    assert words(results)["WCE does not train HighResNet under strong imbalance"] == HOLDS


def test_hardly_any_claim_holds_when_all_figures_are_shuffled() -> None:
    """Shuffled over all settings and losses no claim is true; a rule that held often would hold by its form alone.

    A rule on four losses that had one of them ahead by chance would do so in a quarter of the shuffles, were there no
    margin: 15 of 60. More than 18 have at that chance a probability of 0.16 (binomial), so that a rule that holds by
    chance more often than one loss in four is the first would be caught.
    """
    counts: Counter[str] = Counter()
    rng, original = np.random.default_rng(0), paper_results()
    trials = 60
    for _ in range(trials):
        dice = rng.permutation([one.dice for one in original.outcomes])
        share = rng.permutation([one.share for one in original.outcomes])
        outcomes = tuple(
            replace(one, dice=float(d), test=float(d), share=float(s))
            for one, d, s in zip(original.outcomes, dice, share, strict=True)
        )
        counts.update(claim for claim, word in words(replace(original, outcomes=outcomes)).items() if word == HOLDS)
    assert {claim: n for claim, n in counts.items() if n > 18} == {}


def test_an_unfinished_study_decides_nothing() -> None:
    original = paper_results()
    waiting = changed(
        original, lambda one: replace(one, dice=float("nan"), state="pending") if one.label("lr") == "1e-3" else one
    )
    assert set(words(waiting).values()) <= {UNDECIDED, UNTESTED}


def test_a_study_without_the_networks_tests_nothing() -> None:
    other = relabelled(paper_results(("UNet",)), "network", {"UNet": "segresnet"})
    assert set(words(other).values()) == {UNTESTED}


def test_a_study_with_one_rate_tests_no_claim_on_rates() -> None:
    original = paper_results()
    one_rate = replace(original, outcomes=tuple(one for one in original.outcomes if one.label("lr") == "1e-4"))
    found = words(one_rate)
    assert found["The middle learning rate trains best in 2D"] == UNTESTED
    assert found["GDLv is the most robust over learning rate and patch size"] == UNTESTED


def test_every_verdict_says_its_figures_and_its_rule() -> None:
    for one in verdicts(paper_results()):
        assert one.said.endswith(".") and one.rule.endswith(".") and one.source
        assert one.verdict in (UNTESTED, UNDECIDED) or any(c.isdigit() for c in one.said)
