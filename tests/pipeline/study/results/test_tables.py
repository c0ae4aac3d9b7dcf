"""The tables have the paper's layout."""

from __future__ import annotations

import math
from dataclasses import replace

from rarevox.pipeline.study.results.outcomes import Outcome, Results
from rarevox.pipeline.study.results.paper import NETWORKS_2D, NETWORKS_3D, paper_results
from rarevox.pipeline.study.results.tables import (
    best_of,
    dice_tables,
    heldout_table,
    latex_table,
    share_rows,
    table_rows,
)


def test_networks_of_the_paper_stand_in_its_tables_and_others_in_their_own() -> None:
    original = paper_results()
    extra = Outcome("x", {"network": "segresnet", "patch": "S", "loss": "WCE", "lr": "1e-3"}, state="done", dice=0.5)
    axes = {**original.axes, "network": (*original.labels("network"), "segresnet")}
    tables = dice_tables(replace(original, axes=axes, outcomes=(*original.outcomes, extra)))
    assert [table.name for table in tables] == ["table2", "table3", "training_dice"]
    assert [[name for name, _ in table.networks] for table in tables] == [[*NETWORKS_2D], [*NETWORKS_3D], ["segresnet"]]
    assert not tables[2].has_paper


def test_rows_run_over_patch_then_rate_and_columns_over_network_then_loss() -> None:
    (table,) = dice_tables(paper_results(NETWORKS_3D))
    assert table.rows[:4] == (("S", "1e-5"), ("S", "1e-4"), ("S", "1e-3"), ("M", "1e-5"))
    assert table.losses == ["WCE", "DL2", "SS", "GDLv"] * 2
    # The last line of table 3 as it is printed.
    line = "0.21 (0.33) 0.18 (0.30) 0.05 (0.12) 0.20 (0.33) 0.00 (0.00) 0.62 (0.18) 0.22 (0.15) 0.49 (0.34)"
    assert " ".join(entry.text for entry in table.row(("L", "1e-3"))) == line
    assert " ".join(entry.paper_text for entry in table.row(("L", "1e-3"))) == line


def test_the_best_of_a_row_is_marked_for_each_network_ties_together_and_zeros_never() -> None:
    (table,) = dice_tables(paper_results(NETWORKS_3D))
    assert best_of(table, ("S", "1e-4")) == {2, 3, 7}  # 0.61 twice on DeepMedic, 0.74 on HighResNet
    assert best_of(table, ("S", "1e-3")) == {2}  # HighResNet is 0 throughout


def test_a_scaled_axis_stands_beside_what_it_stands_for() -> None:
    original = paper_results(("HighResNet",))
    outcomes = tuple(
        replace(one, labels={**one.labels, "lr": one.label("lr").replace("1e", "5e")}) for one in original.outcomes
    )
    axes = {**original.axes, "lr": ("5e-5", "5e-4", "5e-3")}
    scaled = {"lr": {"5e-5": "1e-5", "5e-4": "1e-4", "5e-3": "1e-3"}}
    (table,) = dice_tables(replace(original, axes=axes, outcomes=outcomes, scaled=scaled))
    assert [entry.paper_text for entry in table.row(("L", "5e-3"))] == [
        entry.text for entry in table.row(("L", "5e-3"))
    ]
    (plain,) = dice_tables(replace(original, axes=axes, outcomes=outcomes))
    assert (plain.name, plain.has_paper) == ("training_dice", False)


def test_seeds_count_by_their_mean() -> None:
    cells = tuple(
        Outcome(seed, {"network": "n", "loss": "l", "seed": seed}, state="done", dice=dice, q1=0.0, q3=dice)
        for seed, dice in (("0", 0.25), ("1", 0.75))
    )
    (table,) = dice_tables(Results({"network": ("n",), "loss": ("l",), "seed": ("0", "1")}, cells))
    assert table.rows == ((),)
    assert [entry.text for entry in table.row(())] == ["0.50 (0.50)"]


def test_failed_and_pending_cells_say_so() -> None:
    axes = {"network": ("n",), "loss": ("a", "b")}
    cells = (Outcome("1", {"network": "n", "loss": "a"}, state="failed"), Outcome("2", {"network": "n", "loss": "b"}))
    (table,) = dice_tables(Results(axes, cells))
    assert [entry.text for entry in table.row(())] == ["failed", "…"]
    assert heldout_table(Results(axes, cells)) is None


def test_latex_has_a_line_of_the_papers_below_each_of_ours() -> None:
    (table,) = dice_tables(paper_results(("HighResNet",)))
    lines = latex_table(table).splitlines()
    body = lines[lines.index("\\midrule") + 1 : lines.index("\\bottomrule")]
    assert len(body) == 18
    assert body[2] == r"S & 1e-4 & 0.00 (0.00) & 0.71 (0.18) & 0.34 (0.20) & \textbf{0.74 (0.15)} \\"
    columns = {line.count("&") for line in body}
    assert columns == {5}
    assert r"\multicolumn{4}{c}{HighResNet}" in lines[3]
    assert r"\cmidrule(lr){3-6}" in lines


def test_the_csv_has_a_row_for_each_place_with_both_figures() -> None:
    (table,) = dice_tables(paper_results(("UNet",)))
    rows = table_rows(table)
    assert len(rows) == 36
    first = {"network": "UNet", "loss": "WCE", "patch": "S", "lr": "1e-5", "state": "done"}
    assert first.items() <= rows[0].items()
    assert (rows[0]["value"], rows[0]["paper_value"], rows[0]["paper_iqr"]) == (0.71, 0.71, 0.17)


def test_the_foreground_share_stands_beside_the_papers() -> None:
    rows = share_rows(paper_results(("DeepMedic",)))
    assert [row["patch"] for row in rows] == ["S", "M", "L"]
    # Twelve cells with one and the same share: the mean differs by the roundings of eleven sums and a quotient.
    for row in rows:
        assert math.isclose(float(str(row["share"])), float(str(row["paper_share"])), rel_tol=12 * 2.0**-52)
    assert [(row["effective"], row["paper_effective"]) for row in rows] == [(3, 3), (15, 15), (39, 39)]
