"""What becomes of every kind in every stage: the table that the batches are held to and the page shows."""

from __future__ import annotations

from tests.hostile import of_dicom, of_files, of_itk, of_nifti  # noqa: F401, each adds its kinds
from tests.hostile.kinds import KINDS, READ, REFUSED, WARNED, Kind

Expected = tuple[str, str]
SCAN_STAGES = ("predict", "prepare", "train", "evaluate")
MAP_STAGES = ("prepare", "train", "evaluate", "score", "agreement")

_TWO_CHANNELS = (REFUSED, r"has 2 channels")
_NOTHING = (REFUSED, "carries nothing")
_ONE_SLICE = (WARNED, "the scan has one slice")
_SCANS: dict[tuple[str, str], Expected] = {
    ("constant_channel", "predict"): _TWO_CHANNELS,
    ("constant_channel", "train"): _TWO_CHANNELS,
    ("constant_channel", "evaluate"): _TWO_CHANNELS,
    ("constant_channel", "prepare"): _NOTHING,
    ("constant", "prepare"): _NOTHING,
    ("blank", "prepare"): _NOTHING,
    **{(kind, stage): _ONE_SLICE for kind in ("one_voxel_wide", "a_single_slice") for stage in ("predict", "evaluate")},
}
"""Where a stage does otherwise with a scan than reading does."""

NO_MAP = (
    r"expected 0, 1|different grids|the (label|reference) (is|has)|undeclared label|declared are|channels|affines"
    r"|expected one label map|reference: .* holds"
)
"""Words about noise in place of a label map."""


def as_scan(kind: Kind, stage: str) -> Expected:
    """Outcome and words of a kind as a scan. Training does not repeat what `prepare` warned of."""
    found = _SCANS.get((kind.name, stage), (kind.outcome, kind.says))
    return (READ, "") if stage == "train" and found[0] == WARNED else found


def as_map(kind: Kind, stage: str) -> Expected:
    """Outcome and words of a kind as a label map: all hold noise but one."""
    if kind.name == "blank":
        return (WARNED, "no foreground") if stage == "prepare" else (READ, "")
    if kind.outcome == REFUSED:
        return REFUSED, kind.says
    return REFUSED, NO_MAP


_CAPITALS = {
    name.lower(): name for name in ("DICOM", "NIfTI", "NRRD", "MHD", "NHDR", "MGH", "LFS", "HTML", "XML", "JSON")
}
_CAPITALS |= {name.lower(): name for name in ("ZIP", "PNG", "HDF5", "PET", "IMA", "UTF8", "MHA", "NumPy", "macOS")}


def words(kind: Kind) -> str:
    """What a kind is, by its name.

    >>> words(KINDS["gz_that_goes_on"])
    'gz that goes on'
    >>> words(KINDS["dicom_called_ima"])
    'DICOM called IMA'
    """
    return " ".join(_CAPITALS.get(word, word) for word in kind.name.split("_"))


def said(kind: Kind) -> str:
    """The words that its sentence in `predict` holds, without the signs of a pattern.

    >>> said(KINDS["truncated"])
    'is truncated'
    """
    plain = as_scan(kind, "predict")[1].replace(r"\.", ".").replace(r"\(", "(").replace(r"\)", ")")
    return plain.replace(".*", "…").replace("|", " or ").strip()


def table() -> str:
    """The kinds and their outcomes as a table of Markdown."""
    heads = ("kind", "as a scan it is", "told", *SCAN_STAGES[1:], "as a label map")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for kind in sorted(KINDS.values(), key=words):  # whatever was imported first
        reading = as_scan(kind, "predict")[0]
        others = [as_scan(kind, stage)[0] for stage in SCAN_STAGES[1:]]
        maps = {as_map(kind, stage)[0] for stage in MAP_STAGES}
        cells = [words(kind), reading, said(kind).replace("|", "\\|"), *others, " or ".join(sorted(maps))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
