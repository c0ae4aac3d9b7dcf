"""Every layout gives the same cases; what does not fit is a fault of that case or a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.sources.find import find_cases
from rarevox.pipeline.preparation.stated_split import split_leaks


def touch(root: Path, *names: str) -> None:
    """Empty files do: finding cases reads no voxels."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path: Path, content: object) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def found(source: object, root: Path) -> dict[str, tuple[list[str], str]]:
    return {
        case.case: ([p.relative_to(root).as_posix() for p in case.image], case.label.relative_to(root).as_posix())
        for case in source.cases  # type: ignore[attr-defined]
    }


class TestDecathlon:
    def test_cases_channels_and_labels(self, tmp_path: Path) -> None:
        rows = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("a", "b")]
        labels = {"0": "background", "2": "Tumour", "1": "Liver"}
        modality = {"0": "T1", "1": "T2"}
        write(tmp_path / "dataset.json", {"name": "T", "labels": labels, "modality": modality, "training": rows})
        source = find_cases(tmp_path)
        assert source.channels == ("T1", "T2")
        assert list(source.labels.items()) == [("Liver", 1), ("Tumour", 2)]
        assert found(source, tmp_path) == {
            "a": (["imagesTr/a.nii.gz"], "labelsTr/a.nii.gz"),
            "b": (["imagesTr/b.nii.gz"], "labelsTr/b.nii.gz"),
        }

    def test_twice_the_same_modality_gets_numbers(self, tmp_path: Path) -> None:
        content = {"labels": {"1": "x"}, "modality": {"0": "MR", "1": "MR"}, "training": [{"image": "a", "label": "b"}]}
        write(tmp_path / "dataset.json", content)
        assert find_cases(tmp_path).channels == ("MR_0", "MR_1")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"training": []}, 'no "labels"'),
            ({"labels": {"1": "x"}, "training": ["a.nii"]}, "must list"),
            ({"labels": {"whole": "x"}, "channel_names": {"0": "T1"}}, "expected a whole number or a list"),
        ],
    )
    def test_unusable_lists(self, tmp_path: Path, content: dict, message: str) -> None:
        write(tmp_path / "dataset.json", content)
        with pytest.raises(RequestError, match=message):
            find_cases(tmp_path)

    def test_real_task(self, data_dir: Path) -> None:
        source = find_cases(data_dir / "Task04_Hippocampus")
        assert len(source.cases) == 195
        assert source.labels == {"Anterior": 1, "Posterior": 2}


class TestNnunetRaw:
    def test_suffixes_are_channels(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"imagesTr/{n}_000{c}.nii.gz" for n in "ab" for c in (0, 1)), "labelsTr/a.nii.gz")
        touch(tmp_path, "labelsTr/b.nii.gz")
        names = {"0": "T1", "1": "FLAIR"}
        write(tmp_path / "dataset.json", {"channel_names": names, "labels": {"background": 0, "lesion": 1}})
        source = find_cases(tmp_path)
        assert source.channels == ("T1", "FLAIR")
        assert source.labels == {"lesion": 1}
        assert found(source, tmp_path)["b"] == (
            ["imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz"],
            "labelsTr/b.nii.gz",
        )

    def test_a_missing_channel_is_a_fault_of_its_case(self, tmp_path: Path) -> None:
        touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/b_0001.nii.gz")
        touch(tmp_path, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
        write(tmp_path / "dataset.json", {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"lesion": 1}})
        source = find_cases(tmp_path)
        assert list(found(source, tmp_path)) == ["a"]
        assert [(f.case, f.check, f.severity) for f in source.faults] == [("b", "missing-channel", "error")]
        assert "_0000" in source.faults[0].message

    def test_channels_that_are_not_declared(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"imagesTr/a_000{c}.nii.gz" for c in (0, 1)), "labelsTr/a.nii.gz")
        write(tmp_path / "dataset.json", {"channel_names": {"0": "T1"}, "labels": {"lesion": 1}})
        with pytest.raises(RequestError, match=r"declares 1 channels \(_0000\), and most .* have _0000, _0001"):
            find_cases(tmp_path)

    def test_files_named_one_by_one(self, tmp_path: Path) -> None:
        touch(tmp_path, "elsewhere/x.nrrd", "elsewhere/y.nrrd", "seg/x.nrrd")
        row = {"images": ["elsewhere/x.nrrd", "elsewhere/y.nrrd"], "label": "seg/x.nrrd"}
        content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"lesion": 1}, "file_ending": ".nrrd"}
        write(tmp_path / "dataset.json", content | {"dataset": {"a": row}})
        source = find_cases(tmp_path)
        assert source.channels == ("T1", "T2")
        assert found(source, tmp_path) == {"a": (["elsewhere/x.nrrd", "elsewhere/y.nrrd"], "seg/x.nrrd")}

    def test_a_case_without_its_files_names(self, tmp_path: Path) -> None:
        content = {"channel_names": {"0": "T1"}, "labels": {"lesion": 1}, "dataset": {"a": {"label": "b"}}}
        write(tmp_path / "dataset.json", content)
        with pytest.raises(RequestError, match=r'"dataset" in .* must give .* for a;'):
            find_cases(tmp_path)


class TestParallelFolders:
    def test_digits_number_a_channel_unless_a_label_has_them_too(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{kind}/scan_{year}.nii" for kind in ("images", "labels") for year in (2019, 2020)))
        source = find_cases(tmp_path)
        assert list(found(source, tmp_path)) == ["scan_2019", "scan_2020"]
        assert (source.channels, source.channel_files, source.faults) == (None, None, ())

    @pytest.mark.parametrize(
        ("image", "label", "case"), [("_scan", "_scan", "_scan"), ("_img", "_seg", ""), ("", "_gt", "")]
    )
    def test_numbered_images_and_their_labels_may_end_in_what_they_are(
        self, image: str, label: str, case: str, tmp_path: Path
    ) -> None:
        """Of nnU-Net's names the whole is the case's, by which ``splits_final.json`` knows it."""
        touch(tmp_path, *(f"imagesTr/p{n}{image}_000{c}.nii" for n in (1, 2) for c in (0, 1)))
        touch(tmp_path, *(f"labelsTr/p{n}{label}.nii" for n in (1, 2)))
        source = find_cases(tmp_path)
        assert source.faults == ()
        assert found(source, tmp_path) == {
            f"p{n}{case}": ([f"imagesTr/p{n}{image}_000{c}.nii" for c in (0, 1)], f"labelsTr/p{n}{label}.nii")
            for n in (1, 2)
        }

    def test_one_odd_case_breaks_up_no_other(self, tmp_path: Path) -> None:
        touch(
            tmp_path, *(f"images/{n}_000{c}.nii" for n in "abc" for c in (0, 2)), *(f"labels/{n}.nii" for n in "abcd")
        )
        touch(tmp_path, "images/d_0000.nii", "images/c_0005.nii", "images/stray_2019.nii")
        source = find_cases(tmp_path)
        assert list(found(source, tmp_path)) == ["a", "b"]
        assert source.channel_files == (0, 2)
        assert {(fault.case, fault.check) for fault in source.faults} == {
            ("c", "channel-count"),
            ("d", "missing-channel"),
            ("stray", "missing-label"),
        }

    @pytest.mark.parametrize("options", [{}, {"images": "images", "labels": "labels"}])
    def test_paired_by_name_whatever_the_suffix(self, tmp_path: Path, options: dict) -> None:
        touch(tmp_path, "images/a.mha", "images/b_image.nii.gz", "labels/a_seg.nii.gz", "labels/b.nii.gz")
        touch(tmp_path, "images/._a.nii.gz", "images/notes.txt")
        assert found(find_cases(tmp_path, **options), tmp_path) == {
            "a": (["images/a.mha"], "labels/a_seg.nii.gz"),
            "b": (["images/b_image.nii.gz"], "labels/b.nii.gz"),
        }

    def test_absolute_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/a.nii", "y/a.nii", "here/nothing.txt")
        source = find_cases(tmp_path / "here", images=str(tmp_path / "x"), labels=str(tmp_path / "y"))
        assert found(source, tmp_path) == {"a": (["x/a.nii"], "y/a.nii")}

    def test_loners_and_twins_are_faults(self, tmp_path: Path) -> None:
        touch(tmp_path, "images/a.nii", "images/b.nii", "images/d.nii", "images/d.mha")
        touch(tmp_path, "labels/b.nii", "labels/c.nii", "labels/d.nii")
        source = find_cases(tmp_path)
        assert list(found(source, tmp_path)) == ["b"]
        assert {(fault.case, fault.check) for fault in source.faults} == {
            ("a", "missing-label"),
            ("c", "missing-image"),
            ("d", "duplicate-name"),
        }

    def test_missing_and_empty_folders(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"does not exist; name it with --images DIR"):
            find_cases(tmp_path, images="x", labels="y")
        touch(tmp_path, "x/readme.txt", "y/a.nii")
        with pytest.raises(RequestError, match="x holds no images"):
            find_cases(tmp_path, images="x", labels="y")


class TestSubjectFolders:
    OPTIONS: ClassVar[dict[str, Any]] = {"channels": {"Flair": "*Flair*", "T1c": "*T1c*"}, "label": "*seg*"}

    def test_patterns_choose_the_files(self, tmp_path: Path) -> None:
        for name in ("p1", "p2"):
            touch(tmp_path, *(f"{name}/{n}.nii.gz" for n in ("T1c", "x_Flair", "seg", "mask")), f"{name}/licence.txt")
        touch(tmp_path, "docs/readme.txt")
        source = find_cases(tmp_path, **self.OPTIONS, mask="mask*")
        assert source.channels == ("Flair", "T1c")
        assert source.labels is None
        assert not source.faults
        assert found(source, tmp_path)["p2"] == (["p2/x_Flair.nii.gz", "p2/T1c.nii.gz"], "p2/seg.nii.gz")
        assert [case.mask for case in source.cases] == [tmp_path / f"p{n}/mask.nii.gz" for n in (1, 2)]

    def test_files_may_lie_deeper(self, tmp_path: Path) -> None:
        touch(tmp_path, "p1/a/Flair.mha", "p1/b/T1c.mha", "p1/c/seg.mha")
        assert found(find_cases(tmp_path, **self.OPTIONS), tmp_path) == {
            "p1": (["p1/a/Flair.mha", "p1/b/T1c.mha"], "p1/c/seg.mha")
        }

    def test_each_way_to_fail_is_named(self, tmp_path: Path) -> None:
        touch(tmp_path, "good/Flair.nii", "good/T1c.nii", "good/seg.nii")
        touch(tmp_path, "channel/Flair.nii", "channel/seg.nii")
        touch(tmp_path, "label/Flair.nii", "label/T1c.nii")
        touch(tmp_path, "two/Flair.nii", "two/Flair_2.nii", "two/T1c.nii", "two/seg.nii")
        source = find_cases(tmp_path, **self.OPTIONS)
        assert list(found(source, tmp_path)) == ["good"]
        assert {(fault.case, fault.check) for fault in source.faults} == {
            ("channel", "missing-channel"),
            ("label", "missing-label"),
            ("two", "ambiguous-file"),
        }
        by_case = {fault.case: fault.message for fault in source.faults}
        assert "channel T1c" in by_case["channel"]
        assert "Flair.nii, Flair_2.nii" in by_case["two"]

    def test_patterns_that_match_nothing_show_what_is_there(self, tmp_path: Path) -> None:
        touch(tmp_path, "p1/t1.nii", "p1/lesions.nii")
        with pytest.raises(RequestError, match=r"matches the patterns; the first subject holds: lesions\.nii, t1\.nii"):
            find_cases(tmp_path, **self.OPTIONS)

    def test_dicom_series_are_volumes(self, tmp_path: Path) -> None:
        touch(tmp_path, "p1/Flair/1.dcm", "p1/T1c/1.dcm", "p1/seg.nii")
        assert found(find_cases(tmp_path, **self.OPTIONS), tmp_path) == {"p1": (["p1/Flair", "p1/T1c"], "p1/seg.nii")}


class TestBids:
    def test_sessions_are_cases_of_one_subject(self, tmp_path: Path) -> None:
        write(tmp_path / "dataset_description.json", {"Name": "x"})
        for session in ("1", "2"):
            stem = f"sub-01/ses-{session}/anat/sub-01_ses-{session}"
            touch(tmp_path, f"{stem}_FLAIR.nii.gz", f"{stem}_T1w.nii.gz")
            touch(tmp_path, f"derivatives/manual/{stem}_dseg.nii.gz", f"derivatives/prep/{stem}_desc-x_FLAIR.nii.gz")
        source = find_cases(tmp_path, channels={"FLAIR": "*_FLAIR.nii.gz"}, label="*_dseg.nii.gz")
        assert not source.faults
        assert found(source, tmp_path)["sub-01_ses-2"] == (
            ["sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz"],
            "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_dseg.nii.gz",
        )
        assert {case.subject for case in source.cases} == {"sub-01"}

    def test_a_folder_that_ends_in_ses_is_no_session(self, tmp_path: Path) -> None:
        write(tmp_path / "dataset_description.json", {"Name": "x"})
        touch(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz")
        touch(tmp_path, "derivatives/metastases-manual/sub-01/anat/sub-01_dseg.nii.gz")
        source = find_cases(tmp_path, channels={"FLAIR": "*_FLAIR.nii.gz"}, label="*_dseg.nii.gz")
        assert [case.case for case in source.cases] == ["sub-01"] and not source.faults

    def test_patterns_are_asked_for(self, tmp_path: Path) -> None:
        write(tmp_path / "dataset_description.json", {"Name": "x"})
        with pytest.raises(RequestError, match="BIDS dataset; say which files"):
            find_cases(tmp_path)


class TestTables:
    def test_csv_columns_are_channels(self, tmp_path: Path) -> None:
        rows = ("case,T1,T2,label,subject,mask", "a,a1.nii,a2.nii,al.nii,S,am.nii", "b,b1.nii,b2.nii,bl.nii,S,")
        write(tmp_path / "list.csv", "\n".join(rows))
        source = find_cases(tmp_path / "list.csv")
        assert source.channels == ("T1", "T2")
        assert found(source, tmp_path) == {
            "a": (["a1.nii", "a2.nii"], "al.nii"),
            "b": (["b1.nii", "b2.nii"], "bl.nii"),
        }
        assert [case.subject for case in source.cases] == ["S", "S"]
        assert [case.mask for case in source.cases] == [tmp_path / "am.nii", None]

    def test_a_column_twice_and_options_that_a_table_does_not_heed_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "list.csv", "case,FLAIR,FLAIR,label\na,1.nii,2.nii,l.nii\n")
        with pytest.raises(RequestError, match="has the column 'FLAIR' twice"):
            find_cases(tmp_path / "list.csv")
        write(tmp_path / "plain.csv", "case,FLAIR,label\na,1.nii,l.nii\n")
        with pytest.raises(RequestError, match="--channel, --label: .* is a table"):
            find_cases(tmp_path / "plain.csv", channels={"T1": "*T1*"}, label="*l*")

    def test_rows_of_a_list_may_leave_out_what_others_have(self, tmp_path: Path) -> None:
        """A channel that some row names is one of all, and a split that some row states is stated of all."""
        rows = [
            {"case": "a1", "subject": "a", "FLAIR": "f.nii", "label": "l.nii"},
            {"case": "a2", "subject": "a", "FLAIR": "f.nii", "T1": "t.nii", "label": "l.nii"},
        ]
        write(tmp_path / "list.json", rows)
        source = find_cases(tmp_path / "list.json")
        assert source.channels == ("FLAIR", "T1")
        assert [(fault.case, fault.check) for fault in source.faults] == [("a1", "missing-file")]
        rows = [{**row, "T1": "t.nii"} for row in rows]
        rows[1]["split"] = "test"
        write(tmp_path / "list.json", rows)
        (fault,) = split_leaks(find_cases(tmp_path / "list.json").cases, [])
        assert (fault.case, fault.check) == ("a1", "subject-across-split")

    def test_json_list_says_the_same(self, tmp_path: Path) -> None:
        write(tmp_path / "list.json", [{"image": "a.nii", "label": "x/al.nii.gz"}])
        source = find_cases(tmp_path / "list.json")
        assert source.channels is None  # one image column may hold 4D files
        assert found(source, tmp_path) == {"al": (["a.nii"], "x/al.nii.gz")}

    def test_empty_cells_are_faults(self, tmp_path: Path) -> None:
        write(tmp_path / "list.csv", "case,T1,label\na,,al.nii\nb,b.nii,bl.nii\n")
        source = find_cases(tmp_path / "list.csv")
        assert [(fault.case, fault.check) for fault in source.faults] == [("a", "missing-file")]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", "case,T1\na,b\n", "expected label and one column per channel"),
            ("a.csv", "case,label\n", "lists no cases"),
            ("a.json", "[1, 2]", "lists no cases"),
            ("a.txt", "x", "expected a folder of scans, or a .csv or .json"),
        ],
    )
    def test_unusable_tables(self, tmp_path: Path, name: str, content: str, message: str) -> None:
        write(tmp_path / name, content)
        with pytest.raises(RequestError, match=message):
            find_cases(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": {"a": "*"}}, "--channel needs --label PATTERN"),
        ({"label": "*"}, "--label needs --channel NAME=PATTERN"),
        ({"images": "a"}, "--images needs --labels DIR"),
        ({"labels": "a"}, "--labels needs --images DIR"),
        ({"channels": {"a": "*"}, "label": "*", "images": "a", "labels": "b"}, "two different layouts"),
        ({"mask": "*"}, "--mask is a pattern"),
        ({}, "cannot tell how .* Found: a.txt"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: dict, message: str) -> None:
    touch(tmp_path, "a.txt")
    with pytest.raises(RequestError, match=message):
        find_cases(tmp_path, **options)


def test_a_dataset_that_prepare_wrote_is_no_source(dataset_dir: Path) -> None:
    with pytest.raises(RequestError, match="is a dataset that rarevox prepare wrote: train on it, or give what"):
        find_cases(dataset_dir)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="none does not exist"):
        find_cases(tmp_path / "none")


def test_a_pattern_finds_the_subject(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{f}/{n}.nii" for f in ("images", "labels") for n in ("P1_before", "P1_after", "P2_before")))
    source = find_cases(tmp_path, subject=r"^(P\d)_")
    assert [case.subject for case in source.cases] == ["P1", "P1", "P2"]
    either = find_cases(tmp_path, subject=r"^(sub-\d)|^P\d")  # a group that matches nothing is no subject of all
    assert [case.subject for case in either.cases] == ["P1", "P1", "P2"]
    with pytest.raises(RequestError, match=r"\^\(p.* is found in no case's name, such as P1_after; capitals count"):
        find_cases(tmp_path, subject=r"^(p\d)_")
    with pytest.raises(RequestError, match="is no regular expression"):
        find_cases(tmp_path, subject=r"^(P\d")
