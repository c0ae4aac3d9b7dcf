"""Outliers of a cohort: one case far from all others is found; a cohort that mixes on purpose passes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from rarevox.pipeline.preparation.cohort import intensity_outliers, near_duplicates, outlying, spacing_outliers
from rarevox.pipeline.preparation.fingerprint import CaseFacts


def facts(name: str, **more: Any) -> CaseFacts:
    rng = np.random.default_rng([ord(letter) for letter in name])
    signature = rng.normal(size=100).astype(np.float32)
    image = {"min": 0.0, "max": 12.0, "mean": 5.0, "std": 2.0, "p00_5": 0.0, "p05": 1.0, "p50": 5.0, "p95": 11.0}
    signature /= np.linalg.norm(signature)
    plain = CaseFacts(
        case=name,
        size=(9, 9, 9),
        spacing_mm=(1.0, 1.0, 2.0),
        orientation="RAS",
        channels=({"image": image},),
        structures={},
        right_mm={},
        sha256=name,
        image_sha256=name,
        samples=(),
        signature=signature,
    )
    return replace(plain, **more)


def cohort(count: int = 30) -> list[CaseFacts]:
    return [facts(f"c{n}") for n in range(count)]


def with_image(name: str, of: Any) -> CaseFacts:
    image = {key: of(value) for key, value in facts(name).channels[0]["image"].items()}
    low, high = min(image.values()), max(image.values())
    if image["p05"] > image["p95"]:  # inverted: the percentiles change places
        image |= {"p05": image["p95"], "p95": image["p05"], "p00_5": low, "max": high}
    return facts(name, channels=({"image": image},))


def test_the_threshold_is_five_deviations() -> None:
    # 21 values −10 … 10: the median is 0, the median of |x| is 5, s = 1.4826 · 5 = 7.413, so the limit is 37.065.
    values = np.arange(-10.0, 11.0)
    # With one value more at the far end, the median is 0.5 and the median distance 5.5: s = 8.154, the limit 41.27.
    assert not outlying([*values, 41.0], 0.1).any()
    assert outlying([*values, 41.5], 0.1).tolist() == [False] * 21 + [True]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_have_no_outlier(count: int) -> None:
    assert not outlying([0.0] * (count - 1) + [1e9], 0.1).any()


def test_the_floor_keeps_equal_values_quiet() -> None:
    assert not outlying([1.0] * 20 + [1.4], 0.1).any()  # z = 0.4 / 0.1 = 4
    assert outlying([1.0] * 20 + [1.6], 0.1).sum() == 1  # z = 6


def test_a_mixed_cohort_passes() -> None:
    assert outlying([1.0] * 58 + [9.0] * 3, 0.1).sum() == 3  # 3 of 61: at most 61 // 20
    assert not outlying([1.0] * 57 + [9.0] * 4, 0.1).any()


def test_an_outlier_does_not_hide_behind_a_group() -> None:
    assert outlying([1.0] * 80 + [9.0] * 19 + [99.0], 0.1).tolist() == [False] * 99 + [True]


def test_a_clean_cohort() -> None:
    for check in (intensity_outliers, spacing_outliers, partial(near_duplicates, subjects={})):
        assert check(cohort()) == check([]) == []


@pytest.mark.parametrize(
    ("of", "what"),
    [
        (lambda x: 20_000 * x, "log10 of the range"),
        (lambda x: x + 1024, "the 5th percentile, in ranges"),
        (lambda x: 20 - x, "the 5th percentile, in ranges"),
    ],
)
def test_another_scale_an_offset_and_inverted_grey_values(of: Any, what: str) -> None:
    found = intensity_outliers([*cohort(), with_image("odd", of)], ["T1"])
    assert {fault.case for fault in found} == {"odd"}
    assert any(f"channel T1: {what}" in fault.message for fault in found)


@pytest.mark.parametrize(("factor", "expected"), [(5000.0, 0), (20_000.0, 1)])
def test_a_scale_counts_in_mri_beyond_a_factor_of_ten_thousand(factor: float, expected: int) -> None:
    assert len(intensity_outliers([*cohort(), with_image("odd", lambda x: factor * x)])) == expected


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 0), (4.0, 1)])
def test_a_scale_counts_in_hounsfield_units_beyond_a_factor_of_three(factor: float, expected: int) -> None:
    def scan(name: str, factor: float) -> CaseFacts:
        return with_image(name, lambda x: factor * (300 * x - 1000))

    assert len(intensity_outliers([*(scan(f"c{n}", 1.0) for n in range(30)), scan("odd", factor)])) == expected


def test_a_spacing_counts_along_the_body_not_along_the_file() -> None:
    same = facts("same", spacing_mm=(2.0, 1.0, 1.0), orientation="SRA")
    odd = facts("odd", spacing_mm=(2.0, 1.0, 1.0))
    assert [fault.case for fault in spacing_outliers([*cohort(), same])] == []
    assert [fault.case for fault in spacing_outliers([*cohort(), odd])] == ["odd"]


def test_a_near_copy_is_told_and_an_exact_one_is_not() -> None:
    first = cohort()[3]
    near = replace(first, case="near", image_sha256="other")
    exact = replace(first, case="exact")
    (fault,) = near_duplicates([*cohort(), near], {})
    assert (fault.case, fault.check) == ("near", "near-duplicate")
    assert "c3 at 1.000" in fault.message
    assert near_duplicates([*cohort(), exact], {}) == []


def test_scans_of_one_subject_are_alike_and_nothing_is_said() -> None:
    first = cohort()[3]
    later = [*cohort(), replace(first, case="later", image_sha256="other")]
    assert near_duplicates(later, {first.case: "p3", "later": "p3"}) == []
    assert [fault.case for fault in near_duplicates(later, {first.case: "p3", "later": "p4"})] == ["later"]
    assert [fault.case for fault in near_duplicates(later, {first.case: "", "later": ""})] == ["later"]
