"""One hostile alphabet as the name of everything, through every page, table, card and line in the terminal.

What is written must be what harmless names give: the same elements and scripts on a page, the same cells in a table.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.bundle import write_card
from rarevox.pipeline.cli import main
from rarevox.pipeline.console import Console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.evaluation.compare import compare
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, write_results
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.report.page import CaseImages, write_report
from rarevox.pipeline.evaluation.report.results_table import print_results
from rarevox.pipeline.preparation import prepare_report
from rarevox.pipeline.preparation.cases import Fault
from rarevox.pipeline.preparation.checks_page import write_checks_page
from rarevox.pipeline.preparation.corrected.corrections import Fix
from rarevox.pipeline.preparation.examine import Examination
from rarevox.pipeline.preparation.rules.choice import Choice
from rarevox.pipeline.review.agreement import agreement
from rarevox.pipeline.review.monitor import monitor
from rarevox.pipeline.review.monitor_read import read_reviewed
from rarevox.pipeline.words import visible

EVIL = (
    "<!--<script>",
    "<b onclick=x>&amp;",
    "\"'><i>",
    "=cmd|' C'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "[/b][red]:dog:",
    "\x1b[2J\x1b]0;t\x07\x9b31m\r\b",
    "\u202egpj.exe\u2066\u2028",
    "${{7*7}} {% x %} {} {0} %s %(x)s # \\frac{",
    "| ` * _ ~ ^ & \\ ![a](b) <mailto:a@b>",
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
KINDS = ("harmless", "hostile")
LABELS = np.zeros((12, 10, 8), np.uint8)
LABELS[3:7, 3:7, 2:6], LABELS[3:7, 7:9, 2:6] = 1, 2


class Names:
    """Names by number, harmless or from the alphabet: every part of it comes first in some name."""

    def __init__(self, kind: str) -> None:
        self.hostile = kind == "hostile"

    def __call__(self, number: int, slash: bool = True) -> str:
        if not self.hostile:
            return f"name{number}"
        turned = EVIL[number % len(EVIL) :] + EVIL[: number % len(EVIL)]
        text = "".join(turned)[:200] + "</script></title></svg>" + str(number)
        return text if slash else text.replace("/", "[b]")  # the name of a file


class Elements(HTMLParser):
    """How many elements of each kind a page has, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.scripts: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.data: list[Any] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(f"{tag} {name}" for name, _ in attrs)
        self._script = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_comment(self, data: str) -> None:
        self.tags["comment"] += 1

    def handle_data(self, data: str) -> None:
        if self._script is None:
            return
        if self._script.get("type") == "application/json":
            assert not set("<>&'") & set(data)
            self.data.append(json.loads(data))
        else:
            self.scripts.append(data)


def _evaluation(folder: Path, names: Names, shift: int) -> dict[str, Any]:
    """Results of four cases, one of which failed, with their files and report."""
    structures = {names(20): 1, names(21): 2}
    rows: list[dict[str, Any]] = []
    for number in range(3):
        rows += case_rows(names(number), np.roll(LABELS, shift * number, 0), LABELS, (1, 1, 1), structures)
    rows += failed_rows(names(3), structures, f"no {names(4)}", reference=LABELS, spacing_mm=(1, 1, 1))
    result = aggregate(rows, structures)
    write_results(folder, result)
    image = np.random.default_rng(0).normal(size=LABELS.shape)
    dice = dict.fromkeys(structures, 0.5)
    curves = {
        "train": [{"iteration": i, "loss": 1 / i} for i in (1, 2, 3)],
        "validation": [{"iteration": i, "dice": dice, "mean_dice": 0.5} for i in (1, 2)],
    }
    write_report(
        folder / "report.html",
        result,
        title=names(5),
        cases_images=[CaseImages(names(n), image, LABELS, LABELS, np.eye(4)) for n in range(4)],
        curves=curves,
        context={"network": names(6), names(7): names(8)},
    )
    print_results(result)
    return result


def _reviewed(folder: Path, names: Names) -> None:
    """A monitor over two sites."""
    for number in range(2):
        site, scanner = names(30 + number), names(32 + number)
        added = [folder / f"evaluation{number}"]
        monitor(folder / "history.db", add=added, site=site, scanner=scanner, day="2026-01-01")
    monitor(folder / "history.db", folder / "monitor", by="site")


def _annotated(folder: Path, names: Names) -> None:
    """Three annotators and a model, one of whom lacks a case."""
    for number in range(3):
        place = folder / "people" / names(40 + number, slash=False)
        place.mkdir(parents=True)
        for case in range(2 if number == 2 else 3):
            image = nib.Nifti1Image(np.roll(LABELS, number + case, 0), np.eye(4))
            nib.save(image, place / f"{names(case, slash=False)}.nii.gz")
    structures = {names(20): 1, names(21): 2}
    agreement([folder / "people"], folder / "agreement", structures=structures, flag_below=0.99)


def _prepared(folder: Path, names: Names) -> None:
    """The page of the checks and what ``prepare`` says."""
    faults = [
        Fault(names(0), "unreadable", "error", f"the file says {names(1)}", f"x/{names(2)}"),
        Fault(names(3), "rare-label", "warning", names(4)),
    ]
    fixes = [Fix(names(5), "rare-label", names(6), names(7), names(8))]
    found = Examination(facts=[], faults=faults, fixes=fixes, pictures={}, cases={})
    structures = {names(20): 1, names(21): 2}
    write_checks_page(folder / "checks.html", names(9), 6, found, root=folder, structures=structures)
    prepare_report.show_faults(faults, folder)
    prepare_report.show_fixes(fixes)
    prepare_report.show_plan([Choice("key", names(10), names(11))], folder / names(12), named=False)


def _card(folder: Path, names: Names, result: dict[str, Any]) -> None:
    config = {
        "network_def": {"_target_": f"a.{names(1).replace('.', '')}"},
        "loss": {"_target_": "b.Loss"},
        **dict.fromkeys(("fold", "batch_size", "seed"), 1),
        "patch_size": [1, 2, 3],
    }
    labels = {"background": 0, names(20): 1, names(21): 2}
    data = Dataset(names(0), folder, (names(2), names(3)), labels, (), (), 5, 0, 0.1, "0f")
    write_card(folder, config, data, result)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of all that is written, and ``out`` and ``err`` in it, what came to the terminal."""
    folders = {}
    for kind in KINDS:
        names, folder = Names(kind), tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            out, err = io.StringIO(), io.StringIO()
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            results = [_evaluation(folder / f"evaluation{n}", names, n + 1) for n in range(2)]
            pair = [folder / f"evaluation{n}" for n in range(2)]
            compare(pair, folder / "compare", names=[names(50), names(51)])
            _reviewed(folder, names)
            _annotated(folder, names)
            _prepared(folder, names)
            _card(folder, names, results[0])
            for arguments in (["train", names(1)], [names(2)], ["predict", f"--{names(8)}"], ["compare", names(3)]):
                with pytest.raises(SystemExit):
                    main(arguments)
        (folder / "out").write_text(out.getvalue(), newline="")
        (folder / "err").write_text(err.getvalue(), newline="")
        folders[kind] = folder
    return folders


PAGES = (
    "evaluation0/report.html",
    "compare/compare.html",
    "monitor/monitor.html",
    "agreement/agreement.html",
    "checks.html",
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_elements_that_harmless_names_give(written: dict[str, Path], page: str) -> None:
    texts = {kind: (written[kind] / page).read_text(encoding="utf-8") for kind in KINDS}
    plain, hostile = (Elements(texts[kind]) for kind in KINDS)
    assert hostile.tags == plain.tags and hostile.attributes == plain.attributes
    assert hostile.scripts == plain.scripts and len(hostile.data) == len(plain.data)
    assert not UNSEEN.search(texts["hostile"])
    assert "onclick" in texts["hostile"]  # the names are there


@pytest.mark.parametrize("stream", ["out", "err"])
def test_nothing_that_a_terminal_obeys_reaches_it(written: dict[str, Path], stream: str) -> None:
    said = (written["hostile"] / stream).read_bytes().decode("utf-8")
    assert not UNSEEN.search(said)
    assert "\\x1b[2J" in said and "[/b][red]:dog:" in said.replace("\n", "")


@pytest.mark.parametrize(
    "table",
    ["evaluation0/cases.csv", "compare/leaderboard.csv", "compare/differences.csv", "agreement/agreement.csv"],
)
def test_no_cell_of_text_computes_anything(written: dict[str, Path], table: str) -> None:
    tables = []
    for kind in KINDS:
        with (written[kind] / table).open(newline="", encoding="utf-8") as handle:
            tables.append(list(csv.reader(handle)))
    plain, hostile = tables
    assert [len(row) for row in hostile] == [len(row) for row in plain]
    for row in hostile:
        for cell in row:
            assert not UNSEEN.search(cell)
            if cell.lstrip()[:1] in tuple("=+-@"):
                float(cell)  # a number


def test_names_come_back_from_the_table_of_cases(written: dict[str, Path]) -> None:
    cases, _ = read_reviewed(written["hostile"] / "evaluation0")
    names = Names("hostile")
    assert {case.name for case in cases} == {visible(names(n)) for n in range(4)}
    assert [name for name, _, _ in cases[0].figures] == [visible(names(n)) for n in (20, 21)]


def test_the_card_has_no_markup_but_its_own(written: dict[str, Path]) -> None:
    cards = [(written[kind] / "docs" / "README.md").read_text(encoding="utf-8") for kind in KINDS]
    own = [re.findall(r"(?<!\\)[`|<>\[\]*_]|^#+", card, re.MULTILINE) for card in cards]
    assert own[0] == own[1]
    assert len(cards[0].splitlines()) == len(cards[1].splitlines())
    assert not UNSEEN.search(cards[1])


def test_the_latex_table_has_the_commands_that_harmless_names_give(written: dict[str, Path]) -> None:
    escaped = r"\\text(?:backslash|asciitilde|asciicircum)\{\}|\\[&%$#_{}]"
    found = []
    for kind in KINDS:
        text = (written[kind] / "compare" / "leaderboard.tex").read_text(encoding="utf-8")
        found.append(re.findall(r"\\[a-z]+|[&%$#_{}~^\\]", re.sub(escaped, "", text)))
    assert found[0] == found[1]


def test_the_text_of_tables_holds_the_names(written: dict[str, Path]) -> None:
    text = (written["hostile"] / "compare" / "leaderboard.txt").read_text(encoding="utf-8")
    assert not UNSEEN.search(text)
    stream = io.StringIO()
    Console(file=stream, width=400).print(Names("hostile")(50))
    assert EVIL[2] in text and EVIL[2] in stream.getvalue()
