"""The patches without foreground, by enumeration from their definition, and the shares of a mixture."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from rarevox.transforms import (
    BackgroundMixSampler,
    ClassBalancedSampler,
    ForegroundUniformSampler,
    IndexForegroundd,
    LesionBalancedSampler,
    PatchFrame,
    PatchSampler,
    RandForegroundPatchd,
    UniformSampler,
)

from .test_samplers import all_starts, seen, volume

SHAPE = (6, 5, 4)
FRAMES = [PatchFrame.of((2, 2, 2)), PatchFrame.of((3, 4, 3), 1), PatchFrame.of((5, 2, 2), (1, 0, 0))]


def middle_in(content: np.ndarray, start: tuple[int, ...], frame: PatchFrame) -> bool:
    return bool(content[tuple(s + m + e // 2 for s, m, e in zip(start, frame.margin, frame.effective, strict=True))])


def starts(labels: np.ndarray, content: np.ndarray, frame: PatchFrame) -> set[tuple[int, ...]]:
    everywhere = all_starts(labels.shape, frame)
    return {start for start in everywhere if not seen(labels, start, frame).any() and middle_in(content, start, frame)}


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_the_set_is_that_of_the_definition(frame: PatchFrame) -> None:
    random = np.random.default_rng(1)
    for labels in (volume(), np.zeros(SHAPE, np.uint8)):
        for content in (np.ones(SHAPE, bool), random.random(SHAPE) < 0.5):
            found = BackgroundMixSampler(share=1).index_within(labels, frame, content).background
            listed = [found[i] for i in range(len(found))]
            assert len(listed) == len(set(listed))
            assert set(listed) == starts(labels, content, frame)


def test_with_the_paper_s_patches_it_fills_the_volume() -> None:
    """Every start in the volume holds foreground or none."""
    frame, labels = PatchFrame.of((2, 2, 2)), volume()
    held = ForegroundUniformSampler().index(labels, frame)
    free = BackgroundMixSampler(share=1).index(labels, frame).background
    both = [held[i] for i in range(len(held))] + [free[i] for i in range(len(free))]
    assert sorted(both) == sorted(all_starts(labels.shape, frame))


def test_patches_without_foreground_are_uniform() -> None:
    frame, labels = PatchFrame.of((2, 2, 2)), volume()
    sampler, random = BackgroundMixSampler(share=1.0), np.random.RandomState(0)
    index = sampler.index(labels, frame)
    wanted = starts(labels, np.ones(SHAPE, bool), frame)
    drawn = Counter(sampler.draw(index, frame, random) for _ in range(100 * len(wanted)))
    assert set(drawn) == wanted
    assert chisquare([drawn[start] for start in wanted]).pvalue > 1e-4


@pytest.mark.parametrize("inner", [ClassBalancedSampler(), LesionBalancedSampler(), UniformSampler()], ids=str)
def test_a_share_of_nothing_draws_what_the_other_sampler_draws(inner: PatchSampler) -> None:
    frame, labels = PatchFrame.of((2, 2, 2)), volume()
    mix = BackgroundMixSampler(inner, share=0)
    index, own = mix.index(labels, frame), inner.index(labels, frame)
    assert (mix.rule(frame), mix.needs_frame, mix.wants_content) == (inner.rule(frame), inner.needs_frame, False)
    a, b = np.random.RandomState(5), np.random.RandomState(5)
    for number in range(50):
        assert mix.draw_numbered(index, frame, a, number) == inner.draw(own, frame, b)


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0])
def test_numbered_draws_keep_the_share_in_every_stretch(share: float) -> None:
    mix = BackgroundMixSampler(share=share)
    turns = np.cumsum([0] + [mix.wants_background(number) for number in range(200)])
    for first, last in itertools.combinations(range(0, 201, 7), 2):
        assert abs(turns[last] - turns[first] - share * (last - first)) < 1 + 1e-9


def test_draws_of_both_kinds_hold_what_they_should() -> None:
    frame, labels = PatchFrame.of((2, 2, 2)), volume()
    mix, random = BackgroundMixSampler(share=0.5), np.random.RandomState(0)
    index = mix.index(labels, frame)
    for number in range(100):
        held = seen(labels, mix.draw_numbered(index, frame, random, number), frame).any()
        assert held == (number % 2 == 0)


def test_without_a_number_the_share_is_a_probability() -> None:
    """Of 1000 draws with p = 0.3 the number lies within five standard deviations, 5·√(1000·0.3·0.7) = 72, of 300."""
    frame, labels = PatchFrame.of((2, 2, 2)), volume()
    mix, random = BackgroundMixSampler(share=0.3), np.random.RandomState(0)
    index = mix.index(labels, frame)
    free = sum(not seen(labels, mix.draw(index, frame, random), frame).any() for _ in range(1000))
    assert abs(free - 300) < 73


def test_a_case_full_of_foreground_gives_the_other_sampler_s_patches() -> None:
    labels, frame = np.ones((3, 3, 3), np.uint8), PatchFrame.of((2, 2, 2))
    mix = BackgroundMixSampler(share=1.0)
    assert seen(labels, mix.draw(mix.index(labels, frame), frame, np.random.RandomState(0)), frame).all()


def test_the_transform_keeps_to_the_content_and_to_the_mask() -> None:
    image, label, mask = torch.zeros(1, 9, 9, 9), torch.zeros(1, 9, 9, 9, dtype=torch.uint8), torch.zeros(1, 9, 9, 9)
    image[0, 6:, 6:, 6:] = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(0)) + 1
    label[0, 0, 0, 0] = 1
    mask[0, 3, 3, 3] = 1
    sampler = BackgroundMixSampler(share=1.0)
    index = IndexForegroundd(sampler=sampler, patch_size=(3, 3, 3))
    cut = RandForegroundPatchd(["image"], (3, 3, 3), sampler=sampler).set_random_state(seed=0)
    for _ in range(20):  # the middle, a voxel after the start, is content: from (6, 6, 6) on
        assert (cut(index({"image": image, "label": label}))["patch_start"] >= 5).all()
    assert cut(index({"image": image, "label": label, "mask": mask}))["patch_start"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("lesion", [True, False])
def test_patches_without_foreground_are_annotated(lesion: bool) -> None:
    """The lower half is unannotated: there, and in a case whose annotated half is as foreground, none is."""
    label = torch.zeros(1, 12, 6, 6, dtype=torch.uint8)
    label[0, :6] = 255
    label[0, 11, 5, 5] = int(lesion)
    sampler = BackgroundMixSampler(share=1.0)
    case = {"image": torch.rand(1, 12, 6, 6, generator=torch.Generator().manual_seed(0)), "label": label}
    index = IndexForegroundd(sampler=sampler, patch_size=(3, 3, 3))(case)["foreground"].background
    assert {index[i][0] for i in range(len(index))} == ({5, 6, 7, 8, 9} if lesion else set())


def test_options_are_checked_and_samplers_travel() -> None:
    for share in (-0.1, 1.1, "half", True):
        with pytest.raises(ValueError, match="share"):
            BackgroundMixSampler(share=share)  # type: ignore[arg-type]
    mix = BackgroundMixSampler(LesionBalancedSampler(), 0.5)
    assert pickle.loads(pickle.dumps(mix)) == mix
    with pytest.raises(ValueError, match="patch_size"):
        IndexForegroundd(sampler=mix)
