"""What a claim comes to where figures are missing: a verdict always, and none by a group that has no figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rarevox.pipeline.study.results.claims import verdicts
from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.paper import NETWORKS_2D, NETWORKS_3D, paper_results
from rarevox.pipeline.study.results.verdict import UNDECIDED
from tests.pipeline.study.results.test_claims import changed


@pytest.mark.parametrize(
    ("networks", "lost", "claims"),
    [
        (
            NETWORKS_3D,
            {"network": "HighResNet", "loss": "DL2", "lr": "1e-3"},
            ["DL2 does as GDLv at low learning rates and fails at the fastest"],
        ),
        (
            NETWORKS_2D,
            {"network": "TwoPathCNN", "loss": "SS", "lr": "1e-3"},
            ["WCE and DL2 cope less with the fastest learning rate on TwoPathCNN than SS and GDLv"],
        ),
        (
            (*NETWORKS_2D, *NETWORKS_3D),
            {"network": "TwoPathCNN", "lr": "1e-4"},
            [
                "At the middle learning rate smaller patches in larger batches do better",
            ],
        ),
        (
            (*NETWORKS_2D, *NETWORKS_3D),
            {"network": "TwoPathCNN", "patch": "S", "lr": "1e-4"},
            ["At the middle learning rate smaller patches in larger batches do better"],
        ),
    ],
)
def test_a_group_without_figures_decides_nothing(
    networks: tuple[str, ...], lost: dict[str, str], claims: list[str]
) -> None:
    """Nine tenths of a claim's cells are there, and none of the few that it hangs on."""
    gone = {one.cell for one in paper_results(networks).where(**lost)}
    results = changed(paper_results(networks), lambda one: failed(one) if one.cell in gone else one)
    found = {one.claim: one for one in verdicts(results)}
    for claim in claims:
        assert (found[claim].verdict, "0 of" in found[claim].said) == (UNDECIDED, True)


def failed(one: Outcome) -> Outcome:
    nan = float("nan")
    return replace(one, state="failed", dice=nan, q1=nan, q3=nan, share=nan, patch=nan, batch=nan)


def test_whatever_is_missing_every_claim_has_a_verdict() -> None:
    """Any group of labels lost, and cells at random besides: no rule stumbles, and none counts “of 0”."""
    rng, original = np.random.default_rng(0), paper_results()
    roles = ("network", "patch", "loss", "lr")
    for _ in range(150):
        some = {role: str(rng.choice(original.labels(role))) for role in roles if rng.random() < 0.6}
        gone = {one.cell for one in original.where(**some)} if len(some) > 1 else set()
        gone |= {one.cell for one in original.outcomes if rng.random() < 0.03}
        scored = [replace(one, test=one.dice) for one in original.outcomes]
        left = [replace(failed(one), test=float("nan")) if one.cell in gone else one for one in scored]
        for one in verdicts(replace(original, outcomes=tuple(left))):
            assert " of 0" not in one.said and "nan" not in one.said, (some, one)
