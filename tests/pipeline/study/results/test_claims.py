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
    "At the middle learning rate smaller patches in larger batches do better",
    "A mild imbalance is well handled by most losses",
}
IN_3D = {
    "WCE does not train HighResNet under strong imbalance",
    "GDLv is the most robust over learning rate and patch size",
    "SS falls behind GDLv in 3D",
    "DeepMedic depends on the patch more than on the loss",
    "DL2 does as GDLv at low learning rates and fails at the fastest",
    "At the middle learning rate smaller patches in larger batches do better",
    "A mild imbalance is well handled by most losses",
    "Under strong imbalance the losses based on overlap are the more robust",
}


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
    assert {claim.text for claim in CLAIMS} == IN_2D | IN_3D | ON_TEST


def test_the_claim_on_held_out_cases_takes_their_figures() -> None:
    results = changed(paper_results(NETWORKS_3D), lambda one: replace(one, test=one.dice, dice=0.5))
    (claim,) = ON_TEST
    assert words(results)[claim] == HOLDS
    assert words(results)["GDLv is the most robust over learning rate and patch size"] == UNDECIDED


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


def test_hardly_any_claim_holds_when_all_figures_are_shuffled() -> None:
    """Shuffled over all settings and losses no claim is true; a rule that held often would hold by its form alone.

    Each verdict holds with a chance well below a half; that more than half of 60 shuffles say so has, at a chance of
    0.3, a probability below 0.001 (binomial).
    """
    counts: Counter[str] = Counter()
    rng, original = np.random.default_rng(0), paper_results()
    trials = 60
    for _ in range(trials):
        dice = rng.permutation([one.dice for one in original.outcomes])
        share = rng.permutation([one.share for one in original.outcomes])
        outcomes = tuple(
            replace(one, dice=float(d), share=float(s))
            for one, d, s in zip(original.outcomes, dice, share, strict=True)
        )
        counts.update(claim for claim, word in words(replace(original, outcomes=outcomes)).items() if word == HOLDS)
    by_form = {claim: n for claim, n in counts.items() if n > trials / 2}
    assert by_form == {}


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
