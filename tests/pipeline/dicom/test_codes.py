"""Codes of structures: those of the standard's own dictionary, found by names as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rarevox.pipeline.bundle import bundle_metadata
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.dicom import codes
from rarevox.pipeline.dicom.codes import ANATOMY, MORPHOLOGY, coded, given_codes
from rarevox.pipeline.dicom.stated import stated_codes
from rarevox.pipeline.errors import RequestError


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("lesion", "52988006", None),
        ("MS lesions", "52988006", None),
        ("WMH", "110702", None),
        ("Right-Kidney", "64033007", "Right"),
        ("L Thalamus", "42695009", "Left"),
        ("enhancing_tumour", "108369006", None),
        ("edema", "79654002", None),
        ("Ventricles", "35764002", None),
        ("ball", MORPHOLOGY.value, None),
    ],
)
def test_names_are_found_as_people_write_them(name: str, value: str, side: str | None) -> None:
    found = coded(name)
    assert (found.type.value, found.side and found.side.meaning) == (value, side)


def test_the_table_says_what_the_standard_says() -> None:
    concepts = pytest.importorskip("pydicom.sr._concepts_dict", reason="needs the extra 'dicom'").concepts
    known = {(scheme, code) for scheme in concepts for by in concepts[scheme].values() for code in by}
    for name, (category, kind) in codes._TABLE.items():
        assert (category.scheme, category.value) in known
        if name != "infarct":  # SNOMED's code of the morphology, which the dictionary lacks
            assert (kind.scheme, kind.value) in known
    assert set(codes._SAME.values()) <= set(codes._TABLE)


def test_what_somebody_states_counts() -> None:
    given = given_codes({"ball": {"type": ["1", "99ME", "Ball"], "category": list(ANATOMY), "side": "left"}}, "f")
    assert coded("ball", given).type.meaning == "Ball"
    assert coded("ball", given).side == coded("left x").side
    assert coded("lesion", given).type.value == "52988006"


def test_a_dataset_states_codes_for_its_runs_and_a_file_over_them(dataset_dir: Path, tmp_path: Path) -> None:
    content = json.loads((dataset_dir / "dataset.json").read_text())
    ball, box = {"type": ["1", "99ME", "Ball"]}, {"type": ["2", "99ME", "Box"], "side": "left"}
    content["structure_codes"] = {"ball": ball, "box": box}
    content["root"] = str((dataset_dir / content["root"]).resolve())
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    config = {"network_def": {"_target_": "a.Net"}, "loss": {"_target_": "a.Loss"}, "patch_size": [8, 8, 8]}
    (tmp_path / "run" / "configs").mkdir(parents=True)
    metadata = bundle_metadata(config, Dataset.load(tmp_path))
    (tmp_path / "run" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    assert stated_codes(tmp_path / "run") == {"ball": ball, "box": box}
    (tmp_path / "codes.yaml").write_text("ball: {type: ['3', 99ME, Sphere]}")
    assert stated_codes(tmp_path / "run", tmp_path / "codes.yaml")["ball"] == {"type": ["3", "99ME", "Sphere"]}
    metadata["structure_codes"] = {"ball": {"type": "Ball"}}
    (tmp_path / "run" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(RequestError, match='"ball" in "structure_codes" of .*metadata.json'):
        stated_codes(tmp_path / "run")
    assert stated_codes(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "must name structures"),
        ({"a": 3}, "must be a mapping"),
        ({"a": {"type": ["1", "2"]}}, "value, scheme, meaning"),
        ({"a": {"type": ["1", "2", "x\\y"]}}, "value, scheme, meaning"),
        ({"a": {"type": ["1", "2", "3"], "sort": 1}}, "has the key 'sort'"),
        ({"a": {"type": ["1", "2", "3"], "side": "up"}}, "left, right"),
    ],
)
def test_other_forms_are_refused(content: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        given_codes(content, "codes.yaml")
