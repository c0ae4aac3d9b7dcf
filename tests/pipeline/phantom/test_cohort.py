"""The phantom cohort: its geometry, its anatomy, its lesions, its contrast and the folder that it writes."""

from __future__ import annotations

import doctest
import errno
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from scipy import ndimage
from scipy.interpolate import BSpline

from pipeline.errors import RequestError
from pipeline.phantom import anatomy as phantom_anatomy
from pipeline.phantom import cohort as phantom
from pipeline.phantom import contrast as phantom_contrast
from pipeline.phantom import fields as phantom_fields
from pipeline.phantom import lesions as phantom_lesions
from pipeline.phantom.cohort import LESION, VENTRICLES, PhantomSettings, make_subject, write_cohort

SPACING_MM = 3.0


@pytest.fixture(scope="module")
def template() -> dict[str, np.ndarray]:
    """The unsmoothed maps of the whole template at 1 mm, and the voxels' MNI positions under "x", "y", "z"."""
    images, origin = phantom_anatomy.load_template()
    maps = phantom_anatomy.template_maps(images["t1"], images["grey"], images["white"], origin)
    axes = np.ogrid[tuple(slice(o, o + n) for o, n in zip(origin, images["t1"].shape, strict=True))]
    return maps | dict(zip("xyz", axes, strict=True))


@pytest.fixture(scope="module")
def atlas() -> phantom_anatomy.Atlas:
    return phantom_anatomy.build_atlas(SPACING_MM)


@pytest.fixture(scope="module", autouse=True)
def one_atlas(atlas: phantom_anatomy.Atlas) -> Iterator[None]:
    """Every cohort here has the same spacing: build its atlas once (3 s) instead of once per cohort."""

    def give(spacing_mm: float) -> phantom_anatomy.Atlas:
        assert spacing_mm == SPACING_MM
        return atlas

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "build_atlas", give)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "task", subjects=6, spacing_mm=SPACING_MM, seed=3)


def read(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def cases(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (X, Y, Z, 2) as float and label maps of a cohort."""
    for pair in json.loads((folder / "dataset.json").read_text())["training"]:
        yield read(folder / pair["image"]).astype(np.float64), read(folder / pair["label"])


@pytest.mark.parametrize("module", [phantom, phantom_anatomy, phantom_contrast, phantom_fields, phantom_lesions])
def test_the_examples_run(module: object) -> None:
    assert doctest.testmod(module).failed == 0


# ---- smooth fields


def test_spline_weights_agree_with_scipy() -> None:
    weights = phantom_fields.spline_weights(23, 1.5, 7.0)
    # Knot k is the uniform cubic B-spline over the break points (k − 3) … (k + 1), in units of the knot distance.
    for k in range(weights.shape[1]):
        spline = BSpline.basis_element(np.arange(k - 3, k + 2), extrapolate=False)
        expected = np.nan_to_num(spline(np.arange(23) * 1.5 / 7.0))
        np.testing.assert_allclose(weights[:, k], expected, atol=1e-12)


def test_a_spline_field_reproduces_a_linear_function() -> None:
    # Cubic B-splines have linear precision: knot k at position (k − 1)·h holding a·(k − 1)·h gives a·x.
    weights = [phantom_fields.spline_weights(n, 2.0, 5.0) for n in (9, 8, 7)]
    at = [(np.arange(w.shape[1]) - 1) * 5.0 for w in weights]
    knots = 1.0 * at[0][:, None, None] + 2.0 * at[1][:, None] - 3.0 * at[2]
    x, y, z = (2.0 * np.arange(n) for n in (9, 8, 7))
    expected = x[:, None, None] + 2 * y[:, None] - 3 * z
    np.testing.assert_allclose(phantom_fields.spline_field(knots, weights), expected, atol=1e-4)


def jacobian_determinant(positions: np.ndarray, spacing_mm: float) -> np.ndarray:
    """det ∂T/∂x by forward differences, for positions (3, X, Y, Z) in mm."""
    common = tuple(slice(size - 1) for size in positions.shape[1:])
    columns = [np.diff(positions.astype(np.float64), axis=axis)[(slice(None), *common)] for axis in (1, 2, 3)]
    return np.linalg.det(np.moveaxis(np.stack(columns, axis=-1), 0, -2) / spacing_mm)


def test_even_a_wild_displacement_does_not_fold() -> None:
    # A deviation far beyond the limit puts nearly every knot on it: the worst case that the bound allows.
    u = phantom_fields.displacement(
        np.random.default_rng(0), (40, 40, 40), spacing_mm=1.0, knot_mm=10.0, deviation_mm=1e3
    )
    assert abs(u).max() <= 3.5 + 1e-4  # 0.35 · 10 mm
    assert abs(u).max() > 2  # and it is wild
    positions = u + np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"))
    assert jacobian_determinant(positions, 1.0).min() > 0


@pytest.mark.parametrize("seed", range(8))
def test_no_subject_is_folded_or_mirrored(seed: int) -> None:
    shape = phantom_anatomy.subject_shape(2.0)
    positions = phantom_anatomy.template_positions(np.random.default_rng(seed), shape, 2.0)
    determinant = jacobian_determinant(positions, 2.0)
    assert determinant.min() > 0
    assert 0.6 < determinant.mean() < 1.5  # heads stay head-sized
    assert determinant.std() > 0.05  # and are not merely scaled


def test_the_head_affine_is_a_small_proper_map() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        matrix = phantom_anatomy.head_affine(generator)
        # Rotations and unit shears have determinant 1, so only the scales count: 0.92³ = 0.7787, 1.08³ = 1.2597.
        assert 0.7786 < np.linalg.det(matrix) < 1.2598
        assert abs(matrix - np.eye(3)).max() < 0.35


# ---- anatomy


def test_the_packaged_files_are_what_nilearn_gives() -> None:
    direct, origin = phantom_anatomy.load_template()
    for name, image in phantom_anatomy._template_by_nilearn().items():
        np.testing.assert_allclose(direct[name], np.asarray(image.dataobj), atol=1e-6)
        np.testing.assert_array_equal(image.affine[:3, 3], origin)
        np.testing.assert_array_equal(image.affine[:3, :3], np.eye(3))


def test_without_the_packaged_files_nilearn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    blank = nibabel.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4))
    monkeypatch.setattr(phantom_anatomy, "_FILES", {"t1": "moved.nii.gz"})
    monkeypatch.setattr(phantom_anatomy, "_template_by_nilearn", lambda: asked.append(1) or {"t1": blank})
    phantom_anatomy.load_template()
    assert asked


def test_without_nilearn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"nilearn.*pip install"):
        phantom_anatomy.build_atlas(2.0)


def test_tissue_shares_fill_the_brain(template: dict[str, np.ndarray]) -> None:
    inside = template["brain"] > 0
    total = template["grey"] + template["white"] + template["csf"]
    assert np.quantile(abs(total[inside] - 1), 0.99) < 0.02
    assert total[~inside].max() == 0
    assert 1500 < inside.sum() / 1000 < 2100  # ml: a skull-stripped brain with its CSF


def test_the_ventricles_are_the_lateral_ventricles(template: dict[str, np.ndarray]) -> None:
    share = template["ventricles"]
    inside = share > 0.5
    assert 12 < inside.sum() / 1000 < 25  # ml; healthy adults: about 10 to 30
    _, pieces = ndimage.label(inside)
    assert pieces <= 2
    x, y, z = (np.broadcast_to(template[axis], inside.shape)[inside] for axis in "xyz")
    # Landmarks in MNI space: bodies, frontal horns and trigones; nothing in the temporal lobe, cisterns or cerebellum.
    assert x.min() >= -40 and x.max() <= 40 and y.min() >= -65 and y.max() <= 40 and z.min() >= -10 and z.max() <= 35

    def at(*mni: float) -> float:
        index = tuple(int(p - template[axis].min()) for p, axis in zip(mni, "xyz", strict=True))
        return float(share[index])

    for side in (-1, 1):
        assert at(side * 12, 0, 22) > 0.5 and at(side * 11, 22, 8) > 0.5 and at(side * 26, -46, 8) > 0.5
    for elsewhere in ((0, -15, 2), (0, -40, -2), (0, -50, -35), (40, 20, 0)):
        assert at(*elsewhere) < 0.5
    # The template is symmetric (x = −98 … 98), so its ventricles are.
    np.testing.assert_allclose(share, share[::-1], atol=1e-6)


def test_warping_by_the_identity_gives_the_atlas(atlas: phantom_anatomy.Atlas) -> None:
    shape = atlas.maps.shape[1:]
    grid = np.meshgrid(*(o + np.arange(n) for o, n in zip(atlas.origin_mm, shape, strict=True)), indexing="ij")
    warped = phantom_anatomy.warp_atlas(atlas, np.stack(grid).astype(np.float32))
    assert list(warped) == list(phantom_anatomy.CHANNELS)
    for channel, name in enumerate(warped):
        np.testing.assert_allclose(warped[name], atlas.maps[channel].numpy(), atol=1e-3)


def test_lesion_places_keep_to_the_cerebrums_white_matter(template: dict[str, np.ndarray]) -> None:
    low = np.broadcast_to(template["z"] <= 2, template["near"].shape)
    assert template["near"][low].max() == 0 and template["deep"][low].max() == 0
    assert template["white"][template["deep"] > 0].min() > 0.7
    # exp(−d/4 mm): a share of one half is ln 2 · 4 = 2.8 mm from the ventricles, and deep begins beyond 8 mm.
    assert not ((template["near"] > 0.14) & (template["deep"] > 0)).any()  # exp(−8/4) = 0.135


# ---- lesions


@pytest.mark.parametrize("voxels", [1, 2, 7, 40, 300])
@pytest.mark.parametrize("seed", range(3))
def test_a_blob_in_open_space_has_the_size_asked(voxels: int, seed: int) -> None:
    allowed = np.ones((31, 31, 31), bool)
    centre = np.array([15, 15, 15])
    blob = phantom_lesions.grow_blob(np.random.default_rng(seed), centre, voxels, allowed, 2.0)
    _, pieces = ndimage.label(blob.core)
    assert pieces == 1
    # Islands that the noise splits off are dropped, so a blob may come out smaller, never larger.
    assert 0.5 * voxels <= blob.voxels <= voxels
    assert blob.core[tuple(centre - [cut.start for cut in blob.box])]
    assert blob.membership.min() >= 0 and blob.membership.max() <= 1
    np.testing.assert_array_equal(blob.membership > 0.5, blob.core)


def test_a_blob_stays_where_it_is_allowed() -> None:
    allowed = np.zeros((20, 20, 20), bool)
    allowed[:, 9:11] = True
    blob = phantom_lesions.grow_blob(np.random.default_rng(0), np.array([10, 9, 10]), 60, allowed, 1.0)
    assert not (blob.core & ~allowed[blob.box]).any()
    assert blob.voxels > 20
    alone = np.zeros((5, 5, 5), bool)
    alone[2, 2, 2] = True
    assert phantom_lesions.grow_blob(np.random.default_rng(0), np.array([2, 2, 2]), 9, alone, 1.0).voxels == 1


def test_no_blob_is_a_ball_and_no_two_are_alike() -> None:
    centre, allowed = np.array([20, 20, 20]), np.ones((41, 41, 41), bool)
    distance = np.sqrt(((np.indices((41, 41, 41)) - 20) ** 2).sum(axis=0))
    shapes = []
    for seed in range(5):
        blob = phantom_lesions.grow_blob(np.random.default_rng(seed), centre, 500, allowed, 1.0)
        shape = np.zeros((41, 41, 41), bool)
        shape[blob.box] = blob.core
        ball = distance <= np.sort(distance, axis=None)[blob.voxels - 1]
        assert 2 * (shape & ball).sum() / (shape.sum() + ball.sum()) < 0.9
        shapes.append(shape)
    for i, one in enumerate(shapes):
        for two in shapes[:i]:
            assert 2 * (one & two).sum() / (one.sum() + two.sum()) < 0.9


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_asked_loads_average_to_the_share(share: float, seed: int) -> None:
    for subjects in (8, 16, 50):
        asked = [
            phantom_lesions.lesion_target(k, seed=seed, lesion_share=share, voxels=800_000) for k in range(subjects)
        ]
        assert np.mean(asked) == pytest.approx(share * 800_000, rel=0.15)
    assert phantom_lesions.lesion_target(0, seed=seed, lesion_share=1e-9, voxels=1000) == 1


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 3e-5])
def test_the_realised_share_is_the_asked_one(atlas: phantom_anatomy.Atlas, share: float) -> None:
    settings = PhantomSettings(spacing_mm=SPACING_MM, lesion_share=share, seed=1)
    realised = [(make_subject(k, settings, atlas).labels == LESION).mean() for k in range(6)]
    assert min(realised) > 0
    assert np.mean(realised) == pytest.approx(share, rel=0.2)


def test_lesion_sizes_spread_and_lie_near_and_deep(atlas: phantom_anatomy.Atlas) -> None:
    generator = np.random.default_rng(0)
    positions = phantom_anatomy.template_positions(generator, (84, 104, 90), 2.0)
    maps = phantom_anatomy.warp_atlas(atlas, positions)
    lesions = phantom_lesions.place_lesions(generator, maps, 800, spacing_mm=2.0)
    sizes = np.array([lesion.voxels for lesion in lesions])
    assert 790 <= sizes.sum() <= 800 and len(sizes) > 8 and sizes.max() > 4 * np.median(sizes)
    core = np.zeros((84, 104, 90), bool)
    for lesion in lesions:
        assert not (core[lesion.box] & lesion.core).any()  # no voxel is counted twice
        core[lesion.box] |= lesion.core
    assert maps["white"][core].min() > 0.5
    assert positions[2][core].min() > -3  # MNI z: cerebrum
    assert (maps["near"][core] > 0.4).mean() > 0.15 and (maps["deep"][core] > 0.4).mean() > 0.1


def test_no_room_gives_no_lesion() -> None:
    nothing = {name: np.zeros((8, 8, 8), np.float32) for name in phantom_anatomy.CHANNELS}
    assert phantom_lesions.place_lesions(np.random.default_rng(0), nothing, 5, spacing_mm=2.0) == []


# ---- contrast


def uniform_maps(**shares: float) -> dict[str, np.ndarray]:
    names = phantom_anatomy.CHANNELS
    return {name: np.full((24, 24, 24), shares.get(name, 0.0), np.float32) for name in names}


def test_partial_volume_is_the_mean_of_its_tissues() -> None:
    tissue = phantom_contrast.Tissue(white=1.0, grey=0.6, csf=0.2)
    mixed = phantom_contrast._mix(uniform_maps(white=0.5, grey=0.25, csf=0.25), tissue, detail=0.0)
    np.testing.assert_allclose(mixed, 0.5 * 1.0 + 0.25 * 0.6 + 0.25 * 0.2, rtol=1e-6)  # 0.70


def test_the_noise_is_rician() -> None:
    # On no signal Rician noise is Rayleigh: mean/deviation = √(π/2) / √(2 − π/2) = 1.2533 / 0.6551 = 1.913.
    zero, one = np.zeros((40, 40, 40), np.float32), np.ones((40, 40, 40), np.float32)
    scan = phantom_contrast._scan(np.random.default_rng(0), zero, one, 2.0, 0.1)
    assert scan.mean() / scan.std() == pytest.approx(1.913, rel=0.02)
    # Far above the noise it is Gaussian around √(s² + σ²): doubling σ doubles the deviation.
    spreads = [
        np.diff(phantom_contrast._scan(np.random.default_rng(0), one, one, 2.0, noise), axis=0).std()
        for noise in (0.02, 0.04)
    ]
    assert spreads[1] / spreads[0] == pytest.approx(2, rel=0.03)


def test_a_lesion_outshines_grey_matter_by_its_contrast() -> None:
    maps = uniform_maps(white=1.0, brain=1.0)
    lesion = phantom_lesions.Blob((slice(10, 14),) * 3, np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), bool))

    def scan(above: float, lesions: list[phantom_lesions.Blob]) -> np.ndarray:
        return phantom_contrast.render(
            np.random.default_rng(5), maps, lesions, spacing_mm=2.0, contrast=(above, above), noise=0.0
        )

    healthy, faint, plain = scan(0.0, []), scan(0.0, [lesion]), scan(0.6, [lesion])
    outside = np.ones((24, 24, 24), bool)
    outside[lesion.box] = False
    for image in (faint, plain):
        np.testing.assert_array_equal(image[:, outside], healthy[:, outside])
    # FLAIR: grey·(1 + 0.6) against grey·(1 + 0); the same lesion on T1.
    np.testing.assert_allclose(plain[1][lesion.box] / faint[1][lesion.box], 1.6, rtol=1e-5)
    np.testing.assert_array_equal(plain[0], faint[0])
    # A lesion of contrast 0 is grey matter in white: 1.25 on FLAIR, give or take 2 × 3 % twice and 5 % unevenness.
    assert 1.25 / 1.19 < (faint[1] / healthy[1])[lesion.box].mean() < 1.25 * 1.19
    # On T1 it is darker than white, at most by 1.2 of the step to grey, (1 − 0.68)·1.2 = 0.38 and 6 % twice.
    assert 0.5 < (faint[0] / healthy[0])[lesion.box].mean() <= 1


def test_a_half_membership_moves_half_way() -> None:
    image = np.full((3, 3, 3), 1.0, np.float32)
    blob = phantom_lesions.Blob((slice(1, 2),) * 3, np.full((1, 1, 1), 0.5, np.float32), np.ones((1, 1, 1), bool))
    phantom_contrast._blend(image, blob, np.ones((3, 3, 3), np.float32), 2.0)
    assert image[1, 1, 1] == 1.5 and image.sum() == 26 + 1.5


def test_tissues_are_ordered_as_on_t1_and_flair(atlas: phantom_anatomy.Atlas) -> None:
    maps = phantom_anatomy.warp_atlas(
        atlas, phantom_anatomy.template_positions(np.random.default_rng(0), (56, 69, 60), SPACING_MM)
    )
    t1, flair = phantom_contrast.render(
        np.random.default_rng(1), maps, [], spacing_mm=SPACING_MM, contrast=(0.1, 0.1), noise=0.02
    )
    t1_of, flair_of = (
        {name: np.median(image[maps[name] > 0.85]) for name in ("white", "grey", "ventricles")} for image in (t1, flair)
    )
    assert t1_of["ventricles"] < t1_of["grey"] < t1_of["white"]
    assert flair_of["ventricles"] < flair_of["white"] < flair_of["grey"]


def test_no_threshold_on_flair_solves_the_task(cohort: Path) -> None:
    scores = []
    for image, labels in cases(cohort):
        flair, lesion = image[..., 1], labels == LESION
        inside = flair > 0
        z = (flair - flair[inside].mean()) / flair[inside].std()
        predicted = [(z > threshold) & inside for threshold in np.arange(0.5, 6, 0.1)]
        scores.append([2 * (p & lesion).sum() / (p.sum() + lesion.sum()) for p in predicted])
        # … though lesions are bright: brighter than most of the white and grey matter.
        assert np.median(z[lesion]) > np.quantile(z[inside], 0.9)
    assert np.mean(scores, axis=0).max() < 0.65  # the best single threshold, chosen on the answers


# ---- the cohort


def test_same_seed_same_arrays_whatever_the_count_and_the_workers(cohort: Path, tmp_path: Path) -> None:
    again = write_cohort(tmp_path / "again", subjects=2, spacing_mm=SPACING_MM, seed=3, workers=1)
    other = write_cohort(tmp_path / "other", subjects=2, spacing_mm=SPACING_MM, seed=4, workers=2)
    for (image, labels), (same_image, same_labels), (other_image, other_labels) in zip(
        cases(cohort), cases(again), cases(other), strict=False
    ):
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(labels, same_labels)
        assert (image != other_image).any() and (labels != other_labels).any()
    first, second = (image for image, _ in cases(again))
    assert (first != second).mean() > 0.1


def test_the_folder_is_a_decathlon_task(cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    assert "SYNTHETIC" in content["description"] and content["synthetic"] is True
    assert content["modality"] == {"0": "T1", "1": "FLAIR"} and content["tensorImageSize"] == "4D"
    assert content["labels"] == {"0": "background", "1": "lesion", "2": "ventricles"}
    assert content["numTraining"] == 6 == len(content["training"]) and content["test"] == []
    assert content["phantom"]["seed"] == 3 and content["phantom"]["lesion_share"] == 1e-3
    listed = load_decathlon_datalist(cohort / "dataset.json", True, "training", base_dir=cohort)
    assert all(Path(item[key]).is_file() for item in listed for key in ("image", "label"))
    assert not [path for path in cohort.rglob("*") if ".part." in path.name]


def test_the_files_are_plain_ras_nifti(cohort: Path) -> None:
    affines = []
    for pair in json.loads((cohort / "dataset.json").read_text())["training"]:
        image, label = nibabel.load(cohort / pair["image"]), nibabel.load(cohort / pair["label"])
        assert image.shape == (56, 69, 60, 2) and label.shape == (56, 69, 60)  # 168, 208 and 180 mm over 3 mm
        assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        for part in (image, label):
            assert int(part.header["sform_code"]) == 1 == int(part.header["qform_code"])
            assert part.header.get_xyzt_units()[0] == "mm"
            np.testing.assert_allclose(part.header.get_zooms()[:3], SPACING_MM)
        affines.append(image.affine)
    assert len({tuple(affine[:3, 3]) for affine in affines}) == len(affines)


def test_the_volumes_hold_a_stripped_head_and_two_structures(cohort: Path) -> None:
    for image, labels in cases(cohort):
        assert set(np.unique(labels)) == {0, LESION, VENTRICLES}
        inside = image[..., 0] > 0
        np.testing.assert_array_equal(inside, image[..., 1] > 0)
        assert inside[labels > 0].mean() == 1
        assert 1.1e6 < inside.sum() * SPACING_MM**3 < 2.6e6  # mm³
        assert 8e3 < (labels == VENTRICLES).sum() * SPACING_MM**3 < 35e3
        assert image.max() < 32767  # nothing is cut off


def test_the_same_cohort_is_left_alone_and_an_interrupted_one_is_finished(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "task", subjects=2, spacing_mm=SPACING_MM, seed=1)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        os.utime(path, (1, 1))
    write_cohort(folder, subjects=2, spacing_mm=SPACING_MM, seed=1)
    assert {path.stat().st_mtime for path in paths} == {1}
    (folder / "dataset.json").unlink()
    (folder / "labelsTr" / "phantom_001.nii.gz").unlink()
    write_cohort(folder, subjects=2, spacing_mm=SPACING_MM, seed=1)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == paths
    with pytest.raises(RequestError, match="already holds"):
        write_cohort(folder, subjects=2, spacing_mm=SPACING_MM, seed=2)


def test_other_files_are_never_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="already holds"):
        write_cohort(tmp_path, subjects=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RequestError, match="is a file"):
        write_cohort(tmp_path / "notes.txt", subjects=1)


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(RequestError, match="No space left"):
        write_cohort(tmp_path / "task", subjects=1, spacing_mm=SPACING_MM)
    assert not (tmp_path / "task" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("subjects", 0),
        ("workers", 0),
        ("spacing_mm", 0.5),
        ("spacing_mm", float("nan")),
        ("lesion_share", 0),
        ("lesion_share", 0.1),
        ("contrast", (0.5, 0.1)),
        ("contrast", (0.5,)),
        ("noise", -0.1),
        ("seed", -1),
        ("seed", 1.5),
    ],
)
def test_values_out_of_range_are_refused_by_name(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"{option} is .*give"):
        write_cohort(tmp_path / "task", **{option: value})
    assert not (tmp_path / "task").exists()
