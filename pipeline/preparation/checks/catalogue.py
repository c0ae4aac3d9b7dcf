"""Every check that prepare makes: its name, how severe a finding is, what it says. The page lists them from here."""

from __future__ import annotations

from typing import NamedTuple

from rarevox.pipeline.preparation.cases import Fault


class Entry(NamedTuple):
    """A check as ``docs/prepare.md`` lists it; ``fixed`` says what ``--fix`` does about it, where it does anything."""

    name: str
    severity: str
    what: str
    fixed: str = ""


CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry("missing-file", "error", "a file that the list names is not there, or a cell of the table is empty"),
        Entry("missing-image", "error", "a label without an image of its name"),
        Entry("missing-label", "error", "an image without a label of its name"),
        Entry("missing-mask", "error", "no file matches the mask's pattern"),
        Entry("missing-channel", "error", "no file for one of the channels"),
        Entry("ambiguous-file", "error", "several files match a pattern"),
        Entry(
            "case-name",
            "error",
            "a case's name that is no file name: empty, with a leading dot, a slash, or a character that "
            "configurations or terminals obey",
        ),
        Entry("duplicate-name", "error", "several cases or files bear one name"),
        Entry(
            "unreadable",
            "error",
            "truncated, damaged (the checksum of a compressed file is compared), not an image, too many dimensions",
        ),
        Entry("dicom-series", "error", "DICOM with mixed series, damaged, missing or repeated slices, gantry tilt"),
        Entry("singular-affine", "error", "an axis has no length, or two run the same way; impossible voxel sizes"),
        Entry("channel-grid", "error", "channels in several files differ in size or place"),
        Entry("channel-count", "error", "more or fewer channels than declared, or than most cases have"),
        Entry("label-channels", "error", "the label has several channels instead of values"),
        Entry("label-shape", "error", "image and label differ in size", "axes put into the image's order"),
        Entry(
            "label-affine",
            "error",
            "the affines of image and label differ by more than 1e-3 in an entry",
            "axes put into the image's order; an offset under a tenth of a voxel removed",
        ),
        Entry(
            "label-handedness",
            "error",
            "the label's axes are mirrored against the image's",
            "axes put into the image's order, where both cover the same space",
        ),
        Entry(
            "label-not-whole",
            "error",
            "a label value is not a whole number",
            "rounded, where every value is within 0.01 of a whole number",
        ),
        Entry("nothing-annotated", "error", "every voxel has the label of what nobody annotated (`ignore`)"),
        Entry(
            "label-undeclared", "error", "a label value outside the declared set, negative, or as many as in an image"
        ),
        Entry("mask-grid", "error", "the mask lies on another grid than the image", "as for the label"),
        Entry("empty-mask", "error", "the mask selects nothing"),
        Entry(
            "not-finite",
            "error",
            "NaN or infinite voxels",
            "NaN set to 0, where it fills the surround and touches no foreground",
        ),
        Entry("n4-negative", "error", "`--n4`: intensities below 0, which raw MRI does not have"),
        Entry("constant-channel", "error", "a channel with one value throughout"),
        Entry("label-as-channel", "error", "a channel that is the label itself"),
        Entry("subject-across-split", "error", "a stated split has cases of one subject on several sides"),
        Entry("duplicate-across-split", "error", "a stated split has copies of one scan on several sides"),
        Entry(
            "label-ignored",
            "warning",
            "voxels that nobody annotated (nnU-Net's label `ignore`, or `--ignore`): they count in neither training "
            "nor scores",
        ),
        Entry("empty-label", "warning", "no foreground; the case is kept and counted in `cases_without_foreground`"),
        Entry("extreme-voxels", "warning", "a few voxels make up nearly all of a channel's variance"),
        Entry("label-outside", "warning", "over a tenth of the foreground lies in the empty surround of the image"),
        Entry("sheared-affine", "warning", "axes more than 0.6° off the right angle"),
        Entry(
            "form-conflict",
            "warning",
            "sform and qform place a corner more than 0.1 mm apart; the sform counts",
            "qform set to the sform, or switched off where that is sheared",
        ),
        Entry("implausible-spacing", "warning", "voxels below 0.01 mm or above 30 mm: wrong units?"),
        Entry(
            "odd-file",
            "warning",
            "read, though something is odd: data behind the volume, a slope that is no number, DICOM slices that may "
            "have been left out, unknown units",
        ),
        Entry("duplicate-content", "warning", "the same image as another case, voxel for voxel"),
        Entry(
            "near-duplicate", "warning", "nearly the same image as another subject's: rescaled, noisier, another gamma"
        ),
        Entry("spacing-outlier", "warning", "voxels longer or shorter than in nearly all other cases"),
        Entry("intensity-outlier", "warning", "intensities on another scale or otherwise spread than in other cases"),
        Entry(
            "channel-tissue",
            "warning",
            "over 15 % of the tissue in its channels (voxels that are not 0) is 0 in one of them: stripped of the "
            "skull in that alone?",
        ),
        Entry("orientation-outlier", "warning", "axes run as in fewer than one case of twenty"),
        Entry("rare-label", "warning", "no names were declared, and one case alone holds this value"),
    )
}
"""All checks by name."""


def fault(case: str, check: str, message: str, file: object = "") -> Fault:
    """A finding of a check, with the severity that the catalogue gives it.

    >>> fault("c1", "empty-label", "nothing there").severity
    'warning'

    Raises:
        KeyError: the catalogue lists no such check.
    """
    return Fault(case, check, CATALOGUE[check].severity, message, str(file))
