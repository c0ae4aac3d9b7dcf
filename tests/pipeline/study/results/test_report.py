"""The report of a study that is whole, of one that is half done, and of one with hostile names."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.plan import read_plan
from rarevox.pipeline.study.results.example_figure import example_figure
from rarevox.pipeline.study.results.report import read_results, write_report
from tests.browser import Browser, find_browser
from tests.pipeline.study.results.made_up import write_study

EVIL = "<script>alert(1)</script>$x^2$ \u202e"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, dataset_dir: Path) -> Path:
    """The paper's HighResNet, with segmentations of the made-up held-out cases after two of the losses."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, ("HighResNet",), dataset=str(dataset_dir), structures=["ball"])
    case = Dataset.load(dataset_dir).section("test")[0]
    reference = nib.load(case["label"])
    labels = np.asarray(reference.dataobj)
    for loss, shift in (("gdl", 0), ("ss", 2)):
        scored = folder / "cells" / f"highresnet_paper-L-{loss}-1e-4" / "evaluation" / "test"
        (scored / "predictions").mkdir(parents=True)
        moved = np.roll(labels, shift, axis=0)
        nib.save(nib.Nifti1Image(moved, reference.affine), scored / "predictions" / f"{case['case']}_seg.nii.gz")
        rows = [{"case": case["case"], "structure": name, "dice": 0.5} for name in ("ball", "box")]
        (scored / "metrics.json").write_text(json.dumps({"cases": rows}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return write_report(study).read_text(encoding="utf-8")


def test_the_page_is_one_file_with_all_sections(page: str) -> None:
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    for anchor in ("claims", "dice", "isolines", "held-out", "example", "ranks", "robustness", "share", "cells", "how"):
        assert f'id="{anchor}"' in page and f'href="#{anchor}"' in page


def test_figures_are_svg_and_pdf_and_tables_csv_and_latex(study: Path, page: str) -> None:
    figures = study / "report" / "figures"
    names = {path.stem for path in figures.iterdir()}
    tail = "highresnet_paper"
    assert names == {f"isolines_{tail}", f"paper_{tail}", f"heldout_{tail}", f"example_{tail}", "ranks", "robustness"}
    for name in names:
        assert (figures / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    tables = {path.name for path in (study / "report" / "tables").iterdir()}
    assert {"table3.csv", "table3.tex", "test_dice.csv", "test_dice.tex", "cells.csv", "foreground_share.csv"} <= tables
    with (study / "report" / "tables" / "cells.csv").open(encoding="utf-8") as handle:
        assert len(list(csv.DictReader(handle))) == 36


def test_the_verdicts_stand_on_the_page_and_in_their_file(study: Path, page: str) -> None:
    judged = json.loads((study / "report" / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]
    held = [one for one in judged if one["verdict"] == "holds"]
    assert len(held) >= 5
    for one in held:
        assert html.escape(one["claim"]) in page and html.escape(one["said"]).replace("&#x27;", "&#39;") in page


def test_the_example_has_the_dice_of_its_slice(page: str) -> None:
    """A disc of radius 3 has rows of 1, 5, 5, 7, 5, 5, 1 voxels; moved by two along them, 3, 3, 5, 3, 3 still meet.

    Dice 2 · 17 / (29 + 29).
    """
    said = re.search(r'alt="(A held-out case[^"]*)"', page)
    assert said and "SS 0.59, GDLv 1.00" in said[1]
    assert "HighResNet, case_" in said[1] and "patch L, lr 1e-4" in said[1]


def test_held_out_cases_are_those_of_the_evaluation_and_of_the_studys_structures(study: Path) -> None:
    plan = read_plan(study)
    (cell,) = read_results(study, plan).where(loss="ss", patch="L", lr="1e-4")
    assert [(row["structure"], row["dice"]) for row in cell.test_cases] == [("ball", 0.5)]


def test_what_marking_every_voxel_would_have_had_is_counted_where_rows_lack_it(
    study: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """From ``iterations.npz`` (one patch of 1/3: Dice 1/2), unless the row says it; of held-out cases from their maps.

    The reference has 12 + 88 of the map's voxels.
    """
    copy = shutil.copytree(study, tmp_path / "study")
    cells = {loss: copy / "cells" / f"highresnet_paper-L-{loss}-1e-4" for loss in ("ss", "gdl", "wce", "dl2")}
    for loss in ("ss", "gdl", "wce"):
        np.savez(
            cells[loss] / "iterations.npz",
            iteration=np.arange(1, 3),
            dice=np.zeros((2, 1)),
            loss=np.zeros(2),
            foreground_share=np.full((2, 1), 1 / 3),
        )
    row = json.loads((cells["gdl"] / "cell.json").read_text(encoding="utf-8")) | {"constant_dice": 0.25}
    (cells["gdl"] / "cell.json").write_text(json.dumps(row), encoding="utf-8")
    (cells["wce"] / "iterations.npz").write_bytes(b"PK")
    scored = cells["ss"] / "evaluation" / "test"
    (map_file,) = (scored / "predictions").iterdir()
    voxels = int(np.prod(nib.load(map_file).shape))
    own = {"case": map_file.name.removesuffix("_seg.nii.gz"), "structure": "ball", "dice": 0.5, "tp": 12, "fn": 88}
    (scored / "metrics.json").write_text(json.dumps({"cases": [own]}), encoding="utf-8")
    found = read_results(copy, read_plan(copy)).where(patch="L", lr="1e-4")
    constants = {one.label("loss"): one.constant for one in found}
    assert (constants["ss"], constants["gdl"]) == (pytest.approx(0.5, abs=1e-15), 0.25)
    assert np.isnan([constants["wce"], constants["dl2"]]).all()
    held = {one.label("loss"): one.test_constant for one in found}
    assert held["ss"] == 200 / (100 + voxels)
    assert np.isnan([held["gdl"], held["dl2"]]).all()


def test_without_its_dataset_the_study_has_no_example(study: Path, page: str, tmp_path: Path) -> None:
    moved = shutil.copytree(study, tmp_path / "study")
    plan = json.loads((moved / "plan.json").read_text(encoding="utf-8"))
    plan["dataset"]["folder"] = str(tmp_path / "gone")
    (moved / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    found = read_plan(moved)
    assert example_figure(moved, found, read_results(moved, found), "highresnet_paper", tmp_path, "e") is None


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    write_study(tmp_path, ("UNet",), patches=["S"])
    write_report(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}
    write_report(tmp_path)
    after = {path.name: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}
    assert before == after and "ranks.pdf" in before


def test_a_study_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    write_study(tmp_path, ("UNet",), change=lambda content: None)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "0 of 36" in page and "36 to come" in page
    assert 'id="isolines"' not in page and "no loss has two by two cells yet" in page


def test_of_the_papers_claims_only_what_is_tested_is_counted(study: Path, page: str, tmp_path: Path) -> None:
    write_study(tmp_path, ("UNet",), patches=["S"])
    for path in (tmp_path / "plan.json", *tmp_path.glob("cells/*/cell.json")):  # other losses than the paper's
        path.write_text(re.sub(r'"(gdl|dl2|ss|wce)"', r'"my_\1"', path.read_text(encoding="utf-8")), encoding="utf-8")
    for folder, shown in ((study, page), (tmp_path, write_report(tmp_path).read_text(encoding="utf-8"))):
        judged = json.loads((folder / "report" / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]
        tested = any(one["verdict"] != "not tested" for one in judged)
        assert (shown.count('<span class="label">claims of the paper') == 3) == tested == (folder == study)
        assert ('<table class="verdicts">' in shown) == tested == ('id="claims"' in shown)


def test_failed_pending_and_broken_cells_are_rows_with_their_reason(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> dict[str, Any] | None:
        if content["cell"] == "unet2d-S-wce-1e-5":
            return None
        if content["cell"] == "unet2d-S-wce-1e-4":
            return {**content, "state": "failed", "reason": "out of memory"}
        return content

    write_study(tmp_path, ("UNet",), patches=["S"], change=change)
    (tmp_path / "cells" / "unet2d-S-wce-1e-3" / "cell.json").write_text("{", encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "9 of 12" in page and "2 failed, 1 to come" in page
    assert "out of memory" in page and "cannot be read" in page


def test_hostile_names_are_words(tmp_path: Path) -> None:
    """Names of an axis's labels, a dataset and a reason go through pages, pictures, CSV and LaTeX."""
    failed = {"state": "failed", "reason": EVIL}
    write_study(tmp_path, ("UNet",), patches=["S", "M"], change=lambda content: {**content, **failed})
    file = tmp_path / "plan.json"
    plan = json.loads(file.read_text(encoding="utf-8").replace("unet2d-", "cell-").replace("DATASET", "<b>=1+1"))
    plan["axes"]["loss"] = [EVIL, "=cmd", "ss", "gdl"]
    for cell in plan["cells"]:
        cell["labels"]["loss"] = {"wce": EVIL, "dl2": "=cmd"}.get(cell["labels"]["loss"], cell["labels"]["loss"])
    file.write_text(json.dumps(plan), encoding="utf-8")
    for path in list((tmp_path / "cells").iterdir()):
        renamed = path.with_name(path.name.replace("unet2d-", "cell-"))
        shutil.move(path, renamed)
        content = json.loads((renamed / "cell.json").read_text(encoding="utf-8"))
        done = {"state": "done", "cell": renamed.name} if "gdl" not in renamed.name else {"cell": renamed.name}
        (renamed / "cell.json").write_text(json.dumps({**content, **done}), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page and "\u202e" not in page and "<b>" not in page
    assert "'=cmd" in (tmp_path / "report" / "tables" / "table2.csv").read_text(encoding="utf-8")


def test_a_table_of_many_losses_has_them_as_rows(tmp_path: Path) -> None:
    """Two networks and four losses at one patch: eight columns fit; sixteen would not, over three rows of rates."""
    write_study(tmp_path, ("UNet", "TwoPathCNN"), patches=["S"])
    assert len(re.findall(r'<th scope="row">1e-\d</th>', write_report(tmp_path).read_text(encoding="utf-8"))) == 6
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    for cell in list(plan["cells"]):
        labels = {**cell["labels"], "loss": f"my_{cell['labels']['loss']}"}
        plan["cells"].append({**cell, "cell": f"my-{cell['cell']}", "labels": labels})
    plan["axes"]["loss"] += [f"my_{loss}" for loss in plan["axes"]["loss"]]
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    tables = re.findall(r'<table class="paper-table">.*?</table>', page, re.DOTALL)
    assert len(tables) == 2 and all(
        len(re.findall(r'<th scope="row">(?:my_\w+|WCE|DL2|SS|GDLv)<', t)) == 16 for t in tables
    )
    assert all("S, 1e-4" in table and "Patch, LR" in table for table in tables)
    first = next(line for line in tables[0].split("</tr>") if ">GDLv<" in line)
    assert re.findall(r'class="ours">(?:<strong>)?([\d.]+) ', first) == [
        "0.75",
        "0.80",
        "0.72",
    ]  # of the paper's table 2


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a study"):
        write_report(tmp_path)


@pytest.mark.skipif(find_browser() is None, reason="needs a browser on the PATH")
def test_the_page_in_a_browser(study: Path, page: str) -> None:
    with Browser() as browser:
        browser.open(study / "report" / "study.html", width=390)
        assert browser.errors == [] and browser.requests[1:] == []
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        browser.run("document.querySelectorAll('table.sortable thead button')[3].click()")
        rows = "[...document.querySelectorAll('table.sortable tbody tr')]"
        column = browser.run(f"{rows}.map(row => row.cells[3].textContent)")
        assert len(column) == 36 and column == sorted(column)
