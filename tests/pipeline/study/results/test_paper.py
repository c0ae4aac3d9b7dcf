"""The paper's tables are the paper's."""

from __future__ import annotations

import pytest

from rarevox.pipeline.study.results.paper import (
    DICE,
    LOSSES,
    NETWORKS_3D,
    PATCHES,
    RATES,
    SETTINGS,
    paper_results,
    stated,
)

# Table 3 read a second time, column by column: a loss's medians at S, M, L, within each at 1e-5, 1e-4, 1e-3.
TABLE_3 = {
    ("DeepMedic", "WCE"): ".49 .58 .61 .05 .09 .45 .01 .01 .21",
    ("DeepMedic", "DL2"): ".44 .60 .59 .05 .07 .42 .01 .02 .18",
    ("DeepMedic", "SS"): ".42 .61 .63 .05 .08 .17 .01 .02 .05",
    ("DeepMedic", "GDLv"): ".46 .61 .60 .04 .08 .48 .01 .01 .20",
    ("HighResNet", "WCE"): "0 0 0 0 0 0 0 0 0",
    ("HighResNet", "DL2"): "0 .71 0 .60 .71 0 .54 .57 .62",
    ("HighResNet", "SS"): ".06 .34 0 .15 .20 0 .03 .08 .22",
    ("HighResNet", "GDLv"): ".47 .74 0 .64 .69 .65 .50 .60 .49",
}
TABLE_2_GDL = {
    "UNet": ".75 .14 .80 .12 .72 .15 .74 .19 .72 .19 .69 .22 .56 .44 .66 .39 .59 .45",
    "TwoPathCNN": ".49 .44 .80 .12 .72 .15 .73 .19 .76 .17 .72 .19 .56 .35 .64 .35 .79 .11",
}


def column(network: str, loss: str) -> list[tuple[float, float]]:
    return [DICE[network, patch, loss, rate] for patch in PATCHES for rate in RATES]


@pytest.mark.parametrize(("network", "loss"), TABLE_3)
def test_table_3_column_by_column(network: str, loss: str) -> None:
    assert [median for median, _ in column(network, loss)] == [float(x) for x in TABLE_3[network, loss].split()]


@pytest.mark.parametrize("network", TABLE_2_GDL)
def test_the_last_column_of_each_network_of_table_2(network: str) -> None:
    figures = [float(x) for x in TABLE_2_GDL[network].split()]
    assert column(network, "GDLv") == list(zip(figures[::2], figures[1::2], strict=True))


def test_there_are_four_networks_of_thirty_six_cells() -> None:
    assert len(DICE) == 4 * 3 * 3 * 4 == len(paper_results().outcomes)
    assert len(paper_results(NETWORKS_3D).where(network="DeepMedic", loss="SS")) == 9


@pytest.mark.parametrize(("network", "lost"), [("UNet", 40), ("TwoPathCNN", 32), ("DeepMedic", 48), ("HighResNet", 36)])
def test_a_network_takes_the_same_margin_from_every_patch(network: str, lost: int) -> None:
    settings = [SETTINGS[network, patch] for patch in PATCHES]
    assert [one.initial - one.effective for one in settings] == [lost] * 3
    assert [one.batch for one in settings] == [5, 3, 1]


def test_cells_of_a_study_find_the_papers_figure() -> None:
    assert stated("deepmedic_paper", "small", "ss", "0.001") == (0.63, 0.15)
    assert stated("segresnet", "S", "ss", "0.001") is None
    assert stated("unet2d", "S", "dice_ce", "0.001") is None
    assert stated("unet2d", "S", "ss", "0.002") is None
    assert {loss for _, _, loss, _ in DICE} == set(LOSSES)
