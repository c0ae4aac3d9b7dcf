"""What a structure is in the words of SNOMED CT and DICOM: coded by its name, or as its dataset's author says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rarevox.pipeline.data.form import Kind, check_keys
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.names import shown


class Code(NamedTuple):
    """A code value, the scheme that it belongs to, and its meaning in words."""

    value: str
    scheme: str
    meaning: str


class Coded(NamedTuple):
    """A structure's category (DICOM CID 7150), its type, and the side where its name says one."""

    category: Code
    type: Code
    side: Code | None = None


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
MORPHOLOGY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")

_SIDES = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "bilateral": Code("51440002", "SCT", "Right and left"),
}
_SHORT = {"l": "left", "lh": "left", "r": "right", "rh": "right", "both": "bilateral"}

_MORPHOLOGY = {
    "lesion": ("52988006", "SCT", "Lesion"),
    "enhancing lesion": ("C113842", "NCIt", "Enhancing Lesion"),
    "white matter lesion": ("110702", "DCM", "White Matter T2 Hyperintensity"),
    "neoplasm": ("108369006", "SCT", "Neoplasm"),
    "metastasis": ("14799000", "SCT", "Neoplasm, Secondary"),
    "oedema": ("79654002", "SCT", "Edema"),
    "necrosis": ("6574001", "SCT", "Necrosis"),
    "haemorrhage": ("50960005", "SCT", "Hemorrhage"),
    "infarct": ("55641003", "SCT", "Infarct"),
    "nodule": ("27925004", "SCT", "Nodule"),
    "cyst": ("367643001", "SCT", "Cyst"),
    "scar": ("12402003", "SCT", "Scar tissue"),
}
_ANATOMY = {
    "brain": ("12738006", "SCT", "Brain"),
    "brain stem": ("119238007", "SCT", "Brain Stem"),
    "ventricle": ("35764002", "SCT", "Brain ventricle"),
    "lateral ventricle": ("66720007", "SCT", "Lateral Ventricle"),
    "third ventricle": ("49841001", "SCT", "Third ventricle"),
    "fourth ventricle": ("35918002", "SCT", "Fourth Ventricle"),
    "hippocampus": ("5366008", "SCT", "Hippocampus"),
    "amygdala": ("4958002", "SCT", "Amygdala"),
    "thalamus": ("42695009", "SCT", "Thalamus"),
    "caudate": ("11000004", "SCT", "Caudate Nucleus"),
    "putamen": ("89278009", "SCT", "Putamen"),
    "pallidum": ("14738005", "SCT", "Globus Pallidus"),
    "accumbens": ("427667007", "SCT", "Nucleus Accumbens"),
    "cerebellum": ("113305005", "SCT", "Cerebellum"),
    "spinal cord": ("2748008", "SCT", "Spinal cord"),
    "heart": ("80891009", "SCT", "Heart"),
    "aorta": ("15825003", "SCT", "Aorta"),
    "lung": ("39607008", "SCT", "Lung"),
    "oesophagus": ("32849002", "SCT", "Esophagus"),
    "stomach": ("69695003", "SCT", "Stomach"),
    "liver": ("10200004", "SCT", "Liver"),
    "gallbladder": ("28231008", "SCT", "Gallbladder"),
    "spleen": ("78961009", "SCT", "Spleen"),
    "pancreas": ("15776009", "SCT", "Pancreas"),
    "kidney": ("64033007", "SCT", "Kidney"),
    "adrenal gland": ("23451007", "SCT", "Adrenal gland"),
    "colon": ("71854001", "SCT", "Colon"),
    "bladder": ("89837001", "SCT", "Bladder"),
    "prostate": ("41216001", "SCT", "Prostate"),
    "vertebra": ("51282000", "SCT", "Vertebra"),
    "bone": ("272673000", "SCT", "Bone"),
}
_TISSUE = {
    "white matter": ("389080008", "SCT", "White Matter"),
    "grey matter": ("389081007", "SCT", "Gray Matter"),
}
_TABLE = {
    **{name: (MORPHOLOGY, Code(*code)) for name, code in _MORPHOLOGY.items()},
    **{name: (ANATOMY, Code(*code)) for name, code in _ANATOMY.items()},
    **{name: (TISSUE, Code(*code)) for name, code in _TISSUE.items()},
}
_SAME = {
    "tumour": "neoplasm",
    "tumor": "neoplasm",
    "cancer": "neoplasm",
    "enhancing tumour": "neoplasm",
    "enhancing tumor": "neoplasm",
    "non enhancing tumour": "neoplasm",
    "non enhancing tumor": "neoplasm",
    "edema": "oedema",
    "hemorrhage": "haemorrhage",
    "infarction": "infarct",
    "stroke": "infarct",
    "wmh": "white matter lesion",
    "white matter hyperintensity": "white matter lesion",
    "ms lesion": "lesion",
    "ventricles": "ventricle",
    "brainstem": "brain stem",
    "hippocampi": "hippocampus",
    "caudate nucleus": "caudate",
    "globus pallidus": "pallidum",
    "nucleus accumbens": "accumbens",
    "gray matter": "grey matter",
    "esophagus": "oesophagus",
    "gall bladder": "gallbladder",
    "urinary bladder": "bladder",
    "vertebrae": "vertebra",
    "metastases": "metastasis",
}


def coded(name: str, given: Mapping[str, Coded] | None = None) -> Coded:
    """The codes of a structure.

    What is given for the name counts; else the name is looked up in a small table of common ones, without case, plural
    ``s``, and the words for a side; else it is a "Morphologically Abnormal Structure" of that category, and the name,
    which is every segment's label, says the rest.

    >>> coded("Left_Hippocampus").type.meaning, coded("Left_Hippocampus").side.meaning
    ('Hippocampus', 'Left')
    >>> coded("lesions").type.value, coded("ball").type == coded("ball").category == MORPHOLOGY
    ('52988006', True)
    """
    if given and name in given:
        return given[name]
    words = [_SHORT.get(word, word) for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    sides = [word for word in words if word in _SIDES]
    plain = " ".join(word for word in words if word not in _SIDES)
    for wanted in (plain, plain.removesuffix("s")):
        found = _TABLE.get(_SAME.get(wanted, wanted))
        if found is not None:
            return Coded(*found, _SIDES[sides[0]] if len(sides) == 1 else None)
    return Coded(MORPHOLOGY, MORPHOLOGY, _SIDES[sides[0]] if len(sides) == 1 else None)


def _is_code(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    bounds = zip(value, (16, 16, 64), strict=True)  # of DICOM's SH, SH and LO
    return all(isinstance(text, str) and 0 < len(text) <= most and "\\" not in text for text, most in bounds)


_KINDS = {
    "category": Kind(_is_code, "[value, scheme, meaning] of at most 16, 16 and 64 letters", True),
    "type": Kind(_is_code, "[value, scheme, meaning] of at most 16, 16 and 64 letters"),
    "side": Kind(lambda value: value in _SIDES, f"one of {', '.join(_SIDES)}", True),
}


def given_codes(content: object, where: str) -> dict[str, Coded]:
    """Codes that somebody states: for each structure ``{"type": [value, scheme, meaning], "category": …, "side": …}``.

    Args:
        content: as it was read.
        where: names it in messages.

    Raises:
        RequestError: another form.

    >>> given_codes({"ball": {"type": ["78961009", "SCT", "Spleen"], "side": "left"}}, "f")["ball"].type.value
    '78961009'
    """
    if not isinstance(content, Mapping):
        raise RequestError(f"{where} must name structures with their codes, not {shown(content)}")
    found = {}
    for name, entry in content.items():
        if not isinstance(entry, Mapping):
            raise RequestError(f'"{name}" in {where} must be a mapping with "type", not {shown(entry)}')
        unknown = sorted(set(map(str, entry)) - set(_KINDS))
        if unknown:
            raise RequestError(f'"{name}" in {where} has the key {shown(unknown[0])}; expected {", ".join(_KINDS)}')
        check_keys(dict(entry), _KINDS, f'"{name}" in {where}')
        side: Any = entry.get("side")
        found[str(name)] = Coded(
            Code(*entry["category"]) if "category" in entry else MORPHOLOGY,
            Code(*entry["type"]),
            _SIDES[side] if side else None,
        )
    return found
