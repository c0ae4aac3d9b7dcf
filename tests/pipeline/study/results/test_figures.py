"""Which figures a study has, by its axes and by what has come of its cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rarevox.pipeline.study.plan import Plan
from rarevox.pipeline.study.results.drawing import GREY, colours, marks, slugs
from rarevox.pipeline.study.results.example_figure import chosen_setting
from rarevox.pipeline.study.results.figures import draw_all
from rarevox.pipeline.study.results.heldout_figure import heldout_figure
from rarevox.pipeline.study.results.imbalance_figure import (
    MOST_LINES,
    best_first,
    heldout,
    imbalance_figure,
    table_of_means,
    training_dice,
)
from rarevox.pipeline.study.results.isoline_figure import isoline_figure
from rarevox.pipeline.study.results.outcomes import Outcome, Results
from rarevox.pipeline.study.results.paper import paper_results
from rarevox.pipeline.study.results.rank_figure import rank_figure, robustness_figure
from rarevox.pipeline.study.results.ranking import blocks_of, ranking


def rare(losses: int, *, cases: bool = True) -> Results:
    """A study of imbalance: the Dice falls by 0.25 with each step, the first loss the best by far."""
    names, shares = tuple(f"loss_{k}" for k in range(losses)), ("1:100", "1:1000", "1:100000")
    outcomes = []
    for column, share in enumerate(shares):
        for row, loss in enumerate(names):
            dice = 0.75 - 0.25 * column - 0.01 * row
            rows = tuple({"case": f"c{k}", "dice": dice + 0.01 * k, "lesion_recall": 0.5} for k in range(2))
            labels = {"network": "highresnet", "loss": loss, "imbalance": share}
            outcomes.append(Outcome(loss + share, labels, "done", dice=dice, test_cases=rows if cases else ()))
    return Results({"network": ("highresnet",), "loss": names, "imbalance": shares}, tuple(outcomes))


def test_isolines_need_two_by_two_cells(tmp_path: Path) -> None:
    whole = paper_results(("UNet",))
    assert isoline_figure(whole, "UNet", tmp_path, "a") is not None
    column = replace(whole, outcomes=tuple(whole.where(lr="1e-4")), axes={**whole.axes, "lr": ("1e-4",)})
    assert isoline_figure(column, "UNet", tmp_path, "b") is None
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.pdf"}


def test_isolines_say_where_each_loss_is_best(tmp_path: Path) -> None:
    found = isoline_figure(paper_results(("HighResNet",)), "HighResNet", tmp_path, "a")
    assert found is not None
    assert "GDLv at best 0.74 at 0.0001 and patch 15" in found.said
    assert "DL2 at best 0.71 at 0.0001" in found.said


def test_more_losses_than_a_row_take_another_one(tmp_path: Path) -> None:
    whole = paper_results(("UNet",))
    fifth = tuple(
        replace(one, labels={**one.labels, "loss": "dice_ce"}) for one in whole.outcomes if one.label("loss") == "SS"
    )
    axes = {**whole.axes, "loss": (*whole.labels("loss"), "dice_ce")}
    found = isoline_figure(replace(whole, axes=axes, outcomes=whole.outcomes + fifth), "UNet", tmp_path, "a")
    assert found is not None and "dice_ce at best 0.74" in found.said


def test_no_two_figures_share_a_file(tmp_path: Path) -> None:
    """Labels whose parts of names look alike: ``unet_2`` beside ``unet``, ``a b`` at ``c`` beside ``a`` at ``b c``."""
    for labels in (["unet_2", "unet"], ["a", "A", "a/", "a_2", "a-2"], ["", "all", "all_2"]):
        assert len({name.casefold() for name in slugs(labels).values()}) == len(labels)
    whole = paper_results(("UNet",))
    names, imbalances = ("a", "a b"), ("c", "b c")
    outcomes = tuple(
        replace(one, cell=f"{one.cell} {name} {share}", labels={**one.labels, "network": name, "imbalance": share})
        for one in whole.outcomes
        for name in names
        for share in imbalances
    )
    results = Results({**whole.axes, "network": names, "imbalance": imbalances}, outcomes)
    plan = Plan("p", "0", {"folder": str(tmp_path), "fingerprint": ""}, {}, ())
    figures = draw_all(tmp_path, plan, results, None, {}, tmp_path / "figures")
    assert len(figures.isolines) == 4 == len(list((tmp_path / "figures").glob("isolines_*.svg")))
    assert [one.caption for one in figures.isolines] == [f"{n}, imbalance {i}" for n in names for i in imbalances]


def test_the_case_is_of_the_papers_setting_where_that_has_label_maps(tmp_path: Path) -> None:
    """The largest patch, though it is not the last label, at the middle rate: also where other settings have more."""
    whole = paper_results(("UNet",))
    results = replace(whole, axes={**whole.axes, "patch": ("L", "M", "S")})

    def keep(**labels: str) -> None:
        for one in results.where(**labels):
            predictions = tmp_path / "cells" / one.cell / "evaluation" / "test" / "predictions"
            predictions.mkdir(parents=True, exist_ok=True)
            (predictions / "case_seg.nii.gz").touch()

    assert chosen_setting(tmp_path, results, "UNet") == {}
    keep(patch="S", lr="1e-5")
    keep(patch="M", lr="1e-4", loss="SS")
    assert {one.cell for one in chosen_setting(tmp_path, results, "UNet").values()} == {
        one.cell for one in results.where(patch="S", lr="1e-5")
    }
    keep(patch="L", lr="1e-4", loss="GDLv")
    (found,) = chosen_setting(tmp_path, results, "UNet").values()
    assert (found.label("patch"), found.label("lr"), found.label("loss")) == ("L", "1e-4", "GDLv")


def test_each_imbalance_has_a_case_of_its_own(tmp_path: Path) -> None:
    results = rare(2)
    for one in results.outcomes:
        predictions = tmp_path / "cells" / one.cell / "evaluation" / "test" / "predictions"
        predictions.mkdir(parents=True)
        (predictions / "case_seg.nii.gz").touch()
    for share in results.labels("imbalance"):
        found = chosen_setting(tmp_path, results, "highresnet", share)
        assert {one.label("imbalance") for one in found.values()} == {share} and len(found) == 2


def test_held_out_cases_need_figures_and_something_to_compare(tmp_path: Path) -> None:
    whole = paper_results(("UNet",))
    assert heldout_figure(whole, "UNet", tmp_path, "a") is None
    scored = replace(whole, outcomes=tuple(replace(one, test_cases=({"dice": 0.5},)) for one in whole.outcomes))
    found = heldout_figure(scored, "UNet", tmp_path, "a")
    assert found is not None and "WCE 0.50, DL2 0.50, SS 0.50, GDLv 0.50" in found.said
    assert heldout_figure(rare(2), "highresnet", tmp_path, "b") is None


@pytest.mark.parametrize("losses", [2, MOST_LINES + 1])
def test_the_study_of_imbalance_is_drawn_with_few_losses_and_with_many(losses: int, tmp_path: Path) -> None:
    found = imbalance_figure(rare(losses), "highresnet", tmp_path, "a")
    assert found is not None
    assert "at 1 : 100 and at 1 : 100 000: loss_0 0.75 and 0.25" in found.said
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "lesions detected" in drawn and "lesion F1" not in drawn
    assert imbalance_figure(paper_results(("UNet",)), "UNet", tmp_path, "b") is None


def test_means_of_a_loss_at_an_imbalance_are_over_cases_and_seeds() -> None:
    results = rare(2)
    shares = [(1e-2, "1:100"), (1e-3, "1:1000")]
    table = table_of_means(results.outcomes, ("loss_0", "none"), shares, heldout("dice"))
    assert table[0, 0].tolist() == pytest.approx([0.755, 0.75, 0.76])
    assert np.isnan(table[1]).all()
    assert table_of_means(results.outcomes, ("loss_1",), shares, training_dice)[0, 1, 0] == 0.75 - 0.25 - 0.01
    assert best_first(table).tolist() == [0, 1]


def test_ranks_and_robustness_say_their_figures(tmp_path: Path) -> None:
    results = paper_results(("HighResNet",))
    ranks = ranking(blocks_of(results.outcomes, results.labels("loss"), lambda one: one.dice))
    assert ranks is not None
    assert "GDLv 1.50, DL2 2.00, SS 2.83, WCE 3.67" in rank_figure(ranks, tmp_path, "ranks").said
    counts = {"HighResNet": {"WCE": (0, 9), "GDLv": (8, 9)}}
    found = robustness_figure(counts, ("WCE", "GDLv"), tmp_path, "robustness")
    assert "HighResNet, WCE 0 of 9; HighResNet, GDLv 8 of 9" in found.said


def test_losses_differ_in_colour_and_in_mark_and_the_papers_keep_theirs() -> None:
    losses = ["dice", "gdl", "wce", "ss", "dl2", "tversky"]
    assert len(set(colours(losses).values())) == len(set(marks(losses).values())) == len(losses)
    assert colours(losses)["gdl"] == colours(["GDLv"])["GDLv"]
    assert marks(losses)["ss"] == marks(["SS"])["SS"]


def test_no_colour_stands_for_two_losses() -> None:
    """Eight colours, four of them the paper's: five further losses are grey, three have colours of their own."""
    paper = ["gdl", "wce", "ss", "dl2"]
    many, few = (colours([*paper, *(f"loss_{k}" for k in range(count))]) for count in (5, 3))
    assert {many[f"loss_{k}"] for k in range(5)} == {GREY} and len(set(many.values())) == 5
    assert len(set(few.values())) == 7 and GREY not in few.values()
    assert [many[loss] for loss in paper] == [few[loss] for loss in paper]
