"""Label maps against label maps: matching, faults that are listed and counted, exit status, files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rarevox.pipeline.cli import main
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.score import score
from rarevox.pipeline.evaluation.score_pairs import declared_structures, find_pairs

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
STRUCTURES = {"core": 1, "edge": 2}


def _labels(shift: int = 0) -> np.ndarray:
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[3 + shift : 7 + shift, 3:7, 2:6] = 1
    labels[3 + shift : 7 + shift, 7:9, 2:6] = 2
    return labels


def _save(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for name in ("a", "b", "c"):
        _save(references / f"{name}.nii.gz", _labels())
        _save(predictions / f"{name}_seg.nii.gz", _labels(1 if name == "b" else 0))
    return predictions, references


def _run(folders: tuple[Path, Path], output: Path, **options: Any) -> tuple[int, dict]:
    options = {"structures": STRUCTURES, "report": False} | options
    status = score(*folders, output, **options)
    return status, json.loads((output / "metrics.json").read_text())


def _failures(result: dict) -> dict[str, str]:
    return {failure["case"]: failure["reason"] for failure in result["failed"]}


def test_scores_by_hand_and_writes_the_files(folders: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    # Case b is moved by one of four voxels along x: Dice 2·48/(64 + 64) = 0.75 for both; a and c are perfect.
    status, result = _run(folders, tmp_path / "out", report=True)
    assert status == 0
    assert_allclose(result["structures"]["core"]["dice"]["mean"], (1 + 0.75 + 1) / 3)
    assert_allclose(result["mean_dice"], 2.75 / 3)
    assert {row["case"] for row in result["cases"]} == {"a", "b", "c"}
    with (tmp_path / "out" / "cases.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 6
    assert (tmp_path / "out" / "report.html").is_file()
    assert "0.917" in capsys.readouterr().out


def test_where_nothing_could_be_scored_earlier_figures_stay(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A structure's value that was mistyped fails every case."""
    _, before = _run(folders, tmp_path / "out")
    status, after = _run(folders, tmp_path / "out", structures={"core": 77})
    assert status == 1 and after == before


def test_two_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = _save(tmp_path / "anything.nii.gz", _labels(1))
    _, result = _run((other, folders[1] / "a.nii.gz"), tmp_path / "out")
    assert_allclose(result["mean_dice"], 0.75)


def _truncate(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "b_seg.nii.gz"
    path.write_bytes(path.read_bytes()[:60])


def _truncate_reference(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:60])


def _change(labels: np.ndarray, affine: np.ndarray = AFFINE) -> Any:
    return lambda folders: _save(folders[0] / "b_seg.nii.gz", labels, affine)


def _bytes(content: bytes | None) -> Any:
    """Writes ``content`` in place of a prediction, or only the first half of what it was."""

    def spoil(folders: tuple[Path, Path]) -> None:
        path = folders[0] / "b_seg.nii.gz"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)

    return spoil


FAULTS = {
    "half a file": (_bytes(None), "b_seg.nii.gz"),
    "no bytes": (_bytes(b""), "b_seg.nii.gz"),
    "another format": (_bytes(b"\x89PNG and more"), "b_seg.nii.gz"),
    "missing": (lambda folders: (folders[0] / "b_seg.nii.gz").unlink(), "no prediction"),
    "truncated": (_truncate, "b_seg.nii.gz"),
    "reference truncated": (_truncate_reference, "reference: "),
    "shape": (_change(np.zeros((12, 10, 9), np.uint8)), "12×10×9"),
    "affine": (_change(_labels(), AFFINE + 0.01 * np.eye(4)[:, [3, 0, 1, 2]]), "different grids"),
    "unknown label": (_change(_labels() * 3), "undeclared label 3, 6"),
    "not whole": (_change(_labels() * np.float32(0.5)), "not whole numbers"),
    "infinite": (_change(np.where(_labels() > 0, np.inf, 0).astype(np.float32)), "not whole numbers"),
    "channels": (_change(np.stack([_labels()] * 2, -1)), "2 channels"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_bad_case_is_listed_and_counted_and_the_rest_scored(
    name: str, folders: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    spoil, message = FAULTS[name]
    spoil(folders)
    status, result = _run(folders, tmp_path / "out", report=name in ("missing", "reference truncated"))
    assert status == 1
    assert list(_failures(result)) == ["b"]
    assert message in _failures(result)["b"]
    assert_allclose(result["mean_dice"], 2 / 3)  # a and c are perfect, b counts as 0
    assert result["structures"]["core"]["n_failed"] == 1
    assert "failed b" in capsys.readouterr().err


def test_failures_that_differ_in_the_case_alone_share_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = nib.Nifti1Image(_labels() * np.float32(0.5), AFFINE)
    for name in ("case_00", "case_01", "case_02", "case_03", "sound"):
        for folder in ("predictions", "references"):
            (tmp_path / folder).mkdir(exist_ok=True)
            found = nib.Nifti1Image(_labels(), AFFINE)
            bad = folder == "references" and name != "sound"
            nib.save(halves if bad else found, tmp_path / folder / f"{name}.nii.gz")
    assert score(tmp_path / "predictions", tmp_path / "references", structures=STRUCTURES) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed")]
    assert len(told) == 1
    assert told[0].startswith("failed case_00, case_01, case_02 and 1 more: such as reference: case_00.nii.gz holds")


def test_affine_within_tolerance_and_whole_floats_are_fine(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _save(folders[0] / "b_seg.nii.gz", _labels().astype(np.float32), AFFINE + 5e-4 * np.eye(4)[:, [3, 0, 1, 2]])
    status, result = _run(folders, tmp_path / "out")
    assert (status, result["mean_dice"]) == (0, 1.0)


def test_prediction_without_reference_is_named_but_not_in_the_mean(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _save(folders[0] / "d_seg.nii.gz", _labels())
    status, result = _run(folders, tmp_path / "out")
    assert (status, result["unmatched_predictions"], result["n_cases"]) == (1, ["d_seg.nii.gz"], 3)


def test_resample_brings_another_grid_onto_the_reference(folders: tuple[Path, Path], tmp_path: Path) -> None:
    flipped = AFFINE.copy()  # the same voxels stored from the other end of x
    flipped[0] = [-1, 0, 0, 11]
    _save(folders[0] / "b_seg.nii.gz", _labels()[::-1], flipped)
    assert _run(folders, tmp_path / "failed")[0] == 1
    status, result = _run(folders, tmp_path / "out", resample=True)
    assert (status, result["mean_dice"]) == (0, 1.0)
    assert result["conventions"]["other_grids"] == "nearest neighbour"


def test_ignore_unknown(folders: tuple[Path, Path], tmp_path: Path) -> None:
    status, result = _run(folders, tmp_path / "out", structures={"core": 1}, ignore_unknown=True)
    assert (status, list(result["structures"])) == (0, ["core"])
    assert _run(folders, tmp_path / "strict", structures={"core": 1})[0] == 1


def test_structures_from_dataset_json_or_from_the_values(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, result = _run(folders, tmp_path / "found", structures=None)
    assert list(result["structures"]) == ["label_1", "label_2"]
    (folders[1].parent / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "x", "2": "y"}}))
    _, result = _run(folders, tmp_path / "named", structures=None)
    assert list(result["structures"]) == ["x", "y"]
    assert result["conventions"]["structures_from"] == "dataset.json"


def test_the_label_ignore_of_nnunet_is_no_structure(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Values that nobody annotated are refused as undeclared ones are; other sources may call a structure so."""
    labels = {"background": 0, "core": 1, "ignore": 2}
    (folders[1].parent / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "T1"}}))
    status, result = _run(folders, tmp_path / "out", structures=None)
    assert (status, list(result["structures"]), set(_failures(result))) == (1, ["core"], {"a", "b", "c"})
    (folders[1].parent / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert list(_run(folders, tmp_path / "ours", structures=None)[1]["structures"]) == ["core", "ignore"]


def test_options_reach_the_figures(folders: tuple[Path, Path], tmp_path: Path) -> None:
    options = MetricOptions(tolerances_mm=(2.0,), distances=True, lesions=False, empty="zero")
    _, result = _run(folders, tmp_path / "out", options=options)
    assert "surface_dice_2mm" in result["structures"]["core"]
    assert "lesion_f1" not in result["structures"]["core"]
    assert result["conventions"]["empty"] == "zero"


def test_conventions_from_the_command_line(folders: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    given = ["score", *map(str, folders), "--structure", "core=1", "--structure", "edge=2"]
    for more, status in ((["--set", "surface=area", "--set", "lesion_dilation=1"], 0), (["--set", "surfaces=area"], 2)):
        with pytest.raises(SystemExit) as ended:
            main([*given, *more, "--output", str(tmp_path / str(status))])
        assert ended.value.code == status
    stated = json.loads((tmp_path / "0" / "metrics.json").read_text())["conventions"]
    assert (stated["surface"], stated["lesion_dilation"]) == ("area", 1)
    assert "no such convention" in capsys.readouterr().err


def test_number_of_workers_changes_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, many = (_run(folders, tmp_path / str(n), workers=n)[1] for n in (1, 3))
    assert one == many


def test_output_is_not_written_over_something_else(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("")
    with pytest.raises(RequestError, match="other files"):
        score(*folders, tmp_path / "out", structures=STRUCTURES)


def test_an_earlier_score_is_replaced_and_it_is_told(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(folders, tmp_path / "out", report=False)[0] == 0
    assert "replaced" not in capsys.readouterr().err
    assert _run(folders, tmp_path / "out", report=False)[0] == 0
    assert "(mean Dice 0.917 over" in (said := capsys.readouterr().err)
    assert "which is replaced" in said


def test_without_output_nothing_is_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert score(*folders, structures=STRUCTURES) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_requests_that_cannot_be_met(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = folders
    other = tmp_path / "other"
    _save(other / "zzz.nii.gz", _labels())
    (tmp_path / "empty").mkdir()
    for pair, message in (
        ((tmp_path / "nowhere", references), "nowhere does not exist"),
        ((predictions, tmp_path / "empty"), "no label maps"),
        ((predictions / "a_seg.nii.gz", references), "a file and a folder"),
        ((other, references), "zzz.nii.gz"),
    ):
        with pytest.raises(RequestError, match=message):
            score(*pair, structures=STRUCTURES)


def test_a_case_that_two_files_claim_to_be_fails_and_stops_no_other(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = folders
    _save(predictions / "a_pred.nii.gz", _labels())
    _save(references / "b_mask.nii.gz", _labels())
    assert score(*folders, tmp_path / "out", structures=STRUCTURES, report=False) == 1
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    failed = {one["case"]: one["reason"] for one in result["failed"]}
    assert failed["a"].startswith("prediction: a_pred.nii.gz and a_seg.nii.gz in ")
    assert "are both case 'b'; keep one of them" in failed["b"]
    assert result["n_cases"] == len({path.name[0] for path in references.iterdir()})
    assert result["unmatched_predictions"] == []


@pytest.mark.parametrize(
    ("twins", "case"),
    [
        ("a.nii a.nii.gz", "a"),
        ("a.nii a.nrrd", "a"),
        ("s1/a.mha s1/a.nii.gz", "s1_a"),
        ("s1/ct.nii.gz s1_ct.nii.gz", "s1_ct"),
    ],
)
def test_of_two_files_of_one_whole_name_none_is_taken(twins: str, case: str, tmp_path: Path) -> None:
    """Whichever were taken, the other might be the one that is meant."""
    p, r, (first, second) = tmp_path / "p", tmp_path / "r", twins.split()
    for folder, names in ((p, (first, second, "b.nii.gz")), (r, (first, "b.nii.gz"))):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
    found = find_pairs(p, r)
    assert found.matched == {case: (None, r / first), "b": (p / "b.nii.gz", r / "b.nii.gz")}
    both, here = (twins.replace("s1/", ""), p / "s1") if twins.count("s1/") == 2 else (twins, p)
    assert found.doubled == {
        case: f"prediction: {both.replace(' ', ' and ')} in {here} are both case {case!r}; keep one of them"
    }
    assert found.extra == []


def test_a_twin_fails_its_case_with_both_names(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):  # beside a_seg, which counts where no plain name matches
        _save(folders[0] / name, _labels())
    status, result = _run(folders, tmp_path / "out")
    assert (status, list(_failures(result)), result["unmatched_predictions"]) == (1, ["a"], [])
    assert _failures(result)["a"].startswith("prediction: a.nii and a.nii.gz in ")
    assert_allclose(result["mean_dice"], 1.75 / 3)  # b by hand, c perfect, a counts as 0


def test_a_file_is_the_prediction_of_one_case(tmp_path: Path) -> None:
    """``s1/seg`` and ``s1_seg`` are called alike, but are the cases s1_seg and s1."""
    assert _pairs(tmp_path / "both", "s1/seg s1_seg", "s1/seg s1_seg") == {"s1_seg": "s1/seg", "s1": "s1_seg"}
    assert _pairs(tmp_path / "one", "s1/seg", "s1/seg s1_seg") == {"s1_seg": "s1/seg", "s1": None}
    assert _pairs(tmp_path / "other", "s1/seg", "s1_seg") == {"s1": "s1/seg"}


def test_entries_that_cannot_be_used_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = folders
    (predictions / "empty").mkdir()
    (predictions / "gone").symlink_to("nowhere")
    os.mkfifo(references / "pipe")
    (references / "notes.txt").write_text("no map, and not told of")
    (predictions / "journal" / "claims").mkdir(parents=True)
    (predictions / "predictions.json").write_text("{}")  # rarevox predict's own folder
    assert score(*folders, tmp_path / "out", structures=STRUCTURES, report=False) == 1
    left = json.loads((tmp_path / "out" / "metrics.json").read_text())["left"]
    assert [sentence.removeprefix(f"{tmp_path}/") for sentence in left] == [
        f"{predictions.name}/empty holds no label maps",
        f"{predictions.name}/gone is a link to what does not exist",
        f"{references.name}/pipe is a named pipe, no scan",
    ]


def test_exact_names_win_and_channel_endings_do_not_count(tmp_path: Path) -> None:
    for folder, names in (("p", ["x_0000_seg.nii.gz", "y.nrrd"]), ("r", ["x.nii.gz", "y.nii.gz"])):
        for name in names:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(b"")
    pairs = find_pairs(tmp_path / "p", tmp_path / "r")
    assert {case: pair[0].name for case, pair in pairs.matched.items() if pair[0]} == {
        "x": "x_0000_seg.nii.gz",
        "y": "y.nrrd",
    }
    assert pairs.extra == []


def _pairs(folder: Path, predictions: str, references: str) -> dict[str, str | None]:
    """Case → the prediction's path, of empty files."""
    for name, there in (("p", predictions), ("r", references)):
        for file in there.split():
            path = folder / name / f"{file}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    found = find_pairs(folder / "p", folder / "r")
    return {
        case: None if one is None else one.relative_to(folder / "p").as_posix()[:-7]
        for case, (one, _) in found.matched.items()
    }


def test_nested_files_are_paired_by_their_relative_path(tmp_path: Path) -> None:
    names = "s0000/ct s0001/ct deep/er/x flat"
    assert _pairs(tmp_path, names, names) == {
        "deep_er_x": "deep/er/x",
        "flat": "flat",
        "s0000_ct": "s0000/ct",
        "s0001_ct": "s0001/ct",
    }


def test_what_predict_made_of_nested_scans_is_found(tmp_path: Path) -> None:
    assert _pairs(tmp_path, "s0000_ct_seg s0001_ct_seg", "s0000/ct s0001/ct s0002/ct") == {
        "s0000_ct": "s0000_ct_seg",
        "s0001_ct": "s0001_ct_seg",
        "s0002_ct": None,
    }


def test_a_folder_called_like_a_label_map_is_a_failed_case(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = folders
    (predictions / "a_seg.nii.gz").unlink()
    (predictions / "a_seg.nii.gz").mkdir()
    (references / "loop").symlink_to(references, target_is_directory=True)
    assert score(predictions, references, tmp_path / "out", structures=STRUCTURES, report=False) == 1
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["cases"]
    assert {row["status"] for row in rows if row["case"] == "a"} == {"failed"}
    assert {row["status"] for row in rows if row["case"] != "a"} == {"ok"}


def test_a_pipe_in_place_of_a_folder_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="is a named pipe"):
        score(tmp_path / "pipe", folders[1], structures=STRUCTURES)


def test_labels_of_a_dataset_that_are_not_understood(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"a": "b"}}))
    with pytest.raises(RequestError, match="expected"):
        declared_structures(tmp_path)


def test_probabilities_and_entropy_beside_label_maps_are_none(tmp_path: Path) -> None:
    names = ["a_seg", "a_entropy", "a_prob_lesion", "a_prob_b_seg", "b_entropy", "c_prob_x"]
    for folder, there in (("p", names), ("r", ["a"])):
        (tmp_path / folder).mkdir()
        for name in there:
            (tmp_path / folder / f"{name}.nii.gz").write_bytes(b"")
    pairs = find_pairs(tmp_path / "p", tmp_path / "r")
    assert [path.name for path in pairs.matched["a"] if path] == ["a_seg.nii.gz", "a.nii.gz"]
    # No label map lies beside the last two, and a case may well be called a_prob_b.
    assert [path.name for path in pairs.extra] == ["a_prob_b_seg.nii.gz", "b_entropy.nii.gz", "c_prob_x.nii.gz"]


@pytest.mark.parametrize("left_out", ["distances", "lesions"])
def test_a_report_without_a_family_of_figures(tmp_path: Path, left_out: str) -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 1
    for folder in ("p", "r"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / folder / "a.nii.gz")
    options = MetricOptions(**{left_out: False})  # type: ignore[arg-type]
    assert score(tmp_path / "p", tmp_path / "r", tmp_path / "out", options=options) == 0
    assert "Dice 1.000" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_background_has_a_row_where_it_is_asked_for(tmp_path: Path) -> None:
    """4 voxels, the reference marks 1 and the prediction 2 of them: background Dice 2 · 2 / (2 + 3)."""
    for folder, marked in (("p", 2), ("r", 1)):
        (tmp_path / folder).mkdir()
        labels = (np.arange(4) < marked).astype(np.uint8).reshape(4, 1, 1)
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / folder / "a.nii.gz")
    options = MetricOptions(include_background=True)
    assert score(tmp_path / "p", tmp_path / "r", tmp_path / "out", options=options) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["structures"]["background"]["dice"]["mean"] == pytest.approx(0.8)
    assert found["conventions"]["mean_over"] == ["background", "label_1"]


def _dataset(folder: Path, cases: dict[str, str | None], **content: Any) -> Path:
    """The dataset.json that prepare writes, as far as ``score`` reads it: case → subject."""
    folder.mkdir(exist_ok=True)
    rows = [{"case": case} | ({"subject": whose} if whose else {}) for case, whose in cases.items()]
    content = {"labels": {"background": 0} | STRUCTURES, "training": rows[:-1], "test": rows[-1:]} | content
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("beside", [False, True])
def test_scans_of_one_subject_are_drawn_together(
    beside: bool, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cases a and b are of one subject, and c, without a prediction, of another: a failed row says whose it is too."""
    (folders[0] / "c_seg.nii.gz").unlink()
    data = _dataset(folders[1] if beside else tmp_path / "data", {"a": "P1", "b": "P1", "c": "P2"})
    rules = tmp_path / "rules.yaml"
    rules.write_text("core: {largest: true}")
    _, result = _run(folders, tmp_path / "out", dataset=None if beside else data, post_processing=rules)
    assert {row["case"]: row["subject"] for row in result["cases"]} == {"a": "P1", "b": "P1", "c": "P2"}
    # Two subjects are drawn with their cases: P1 twice is (1 + 0.75) / 2, P2 twice is 0, both are 1.75 / 3; each of the
    # two ends has a chance of 1 in 4, so that the 2.5 % at either end are these. Of three cases drawn one by one the
    # upper end would be that of a alone, which has a chance of 1 in 27.
    for figures in (result, result["without_post_processing"]):
        assert_allclose(figures["structures"]["core"]["dice"]["ci95"], [0, 0.875])
        assert_allclose(figures["mean_dice_ci95"], [0, 0.875])
    assert "no subject" not in capsys.readouterr().err


def test_a_case_without_a_subject_of_its_own_is_its_own(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unnamed = _dataset(tmp_path / "data", {"a": None, "b": None, "c": None})
    assert all("subject" not in row for row in _run(folders, tmp_path / "none", dataset=unnamed)[1]["cases"])
    some = _dataset(tmp_path / "data", {"a_seg": "P1", "b": None, "z": "P2"})
    _, result = _run(folders, tmp_path / "some", dataset=some)
    assert {row["case"]: row.get("subject") for row in result["cases"]} == {"a": "P1", "b": "b", "c": None}
    assert "no subject" in (said := " ".join(capsys.readouterr().err.split()))
    assert "has no case called c; in the intervals" in said


def test_a_reference_that_is_the_datasets_label_file_is_its_case(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The dataset may call its cases otherwise, as where each has a folder and all files are called alike."""
    rows = [
        {"case": f"case {whose}", "subject": whose, "label": f"{name}.nii.gz"} for name, whose in ("a1", "b1", "c2")
    ]
    data = _dataset(tmp_path / "data", {}, root="../references", training=rows)
    _, result = _run(folders, tmp_path / "out", dataset=data)
    assert {row["case"]: row["subject"] for row in result["cases"]} == {"a": "1", "b": "1", "c": "2"}


def test_datasets_of_other_tools_name_no_subjects(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pairs = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
    data = _dataset(tmp_path / "data", {}, training=pairs, test=["imagesTs/b.nii.gz"])
    assert all("subject" not in row for row in _run(folders, tmp_path / "decathlon", dataset=data)[1]["cases"])
    data = _dataset(tmp_path / "data", {}, training=3, channel_names={"0": "T1"})
    assert _run(folders, tmp_path / "nnunet", dataset=data)[0] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [{"case": "a", "subject": 7}]}, r'"subject" in "training"\[0\] of .* is 7; expected a name'),
        ({"test": [{"case": None}]}, r'"case" in "test"\[0\] of .* expected a name'),
        ({"labels": None}, 'has no "labels"'),
    ],
)
def test_a_dataset_of_another_form_is_refused(
    content: dict[str, Any], message: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        score(*folders, structures=STRUCTURES, dataset=_dataset(tmp_path / "data", {}, **content))
