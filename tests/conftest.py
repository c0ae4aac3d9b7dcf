"""Fixtures shared by all tests: the real data where it is, and a small synthetic dataset with a trained run."""

from __future__ import annotations

import gc
import itertools
import json
import locale
import multiprocessing
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; read when torch is imported
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the workers of pytest-xdist share the cores
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import settings

from tests import forked

if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()  # until all is collected, which makes millions of objects that stay
settings.register_profile("rarevox", deadline=None, derandomize=True)  # machines differ in speed; seeds are explicit
settings.load_profile("rarevox")
multiprocessing.get_context("forkserver").set_forkserver_preload(forked.LIBRARIES)
# A fork makes PyTorch's pool of threads anew where one of its threads first asks for it, without a lock: two that ask
# at once fail. So it is made before there are two.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", default=os.environ.get("RAREVOX_TEST_DATA"), help="folder with the real volumes")
    parser.addoption("--older-cpu", action="store_true", help="fail unless PyTorch and Numba are held to an older CPU")
    parser.addoption("--without-numba", action="store_true", help="as where Numba is not installed")
    parser.addoption(
        "--on", default="cuda", help="device of tests/gpu; cpu shows that these tests themselves are sound"
    )
    parser.addoption("--kills", type=int, default=5, help="how often the survival test kills its training")
    parser.addoption("--whole-networks", action="store_true", help="export the shipped networks in full width")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-numba"):
        sys.modules["numba"] = None  # type: ignore[assignment]  # neither found nor imported


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: tests that wait for other processes leave a third of two cores idle.

    The numerics alone wait for nobody, and each process costs some seconds to start.
    """
    waiting = not (config.getoption("--older-cpu") or config.getoption("--without-numba"))
    return (os.cpu_count() or 1) + waiting


LONG = (
    "test_site",
    "test_pretended_cuda",
    "interpreted",
    "test_crossval",
    "engines",
    "export",
    "test_survival",
    "test_processes",
)
"""Files and folders that take half a minute and more, and so begin first: none is to run alone at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in LONG for name in (item.path.stem, item.path.parent.name)))
    folder = config.getoption("--data")
    for item in items:
        elsewhere = config.getoption("--on") == "cpu" and "on" in getattr(item, "fixturenames", ())
        if item.get_closest_marker("gpu") and not (torch.cuda.is_available() or elsewhere):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("data") and not (folder and Path(folder).is_dir()):
            item.add_marker(pytest.mark.skip(reason="needs the real volumes: --data DIR or RAREVOX_TEST_DATA"))


def pytest_collection_finish() -> None:
    """What was imported and collected is no garbage: a full collection, which looks at it all, takes two seconds."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """At the end it is: what of nanobind is left then is told as leaked. Nor does a process of a failed test stay."""
    gc.unfreeze()
    forked.kill_all()


LOCALE = locale.setlocale(locale.LC_ALL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """SimpleITK's writer of DICOM, which some tests use, leaves the process in the C locale, where text is ASCII."""
    locale.setlocale(locale.LC_ALL, LOCALE)


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder with the real volumes."""
    folder = request.config.getoption("--data")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real volumes: --data DIR or RAREVOX_TEST_DATA")
    return Path(folder)


def write_task(folder: Path, cases: int = 8, shape: tuple[int, int, int] = (22, 20, 18), seed: int = 0) -> Path:
    """A Decathlon task folder: noise with a bright ball (1) and a dark box (2), mirrored and shifted affines."""
    random = np.random.default_rng(seed)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    axes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    listed = []
    for number in range(cases):
        centre = random.integers(6, np.array(shape) - 6)
        ball = ((axes - centre[:, None, None, None]) ** 2).sum(0) <= 9
        corner = random.integers(1, 4, 3)
        labels = np.zeros(shape, np.uint8)
        labels[tuple(slice(c, c + 3) for c in corner)] = 2
        labels[ball] = 1
        image = random.normal(100, 10, shape) + 80 * (labels == 1) - 60 * (labels == 2)
        affine = np.diag([-1.0 if number % 2 else 1.0, 1.0, 1.5, 1.0])
        affine[:3, 3] = random.uniform(-50, 50, 3)
        for kind, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", labels)):
            volume = nib.Nifti1Image(array, affine)
            volume.set_sform(affine, 1)
            volume.set_qform(affine, 1)
            nib.save(volume, folder / kind / f"case_{number:02}.nii.gz")
        listed.append({"image": f"./imagesTr/case_{number:02}.nii.gz", "label": f"./labelsTr/case_{number:02}.nii.gz"})
    content = {
        "name": "Ball and box",
        "modality": {"0": "noise"},
        "labels": {"0": "background", "1": "ball", "2": "box"},
        "training": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def counted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--minutes`` counted: each look at the clock is 20 ms after the one before, on any machine, however busy."""
    looks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(looks) / 50)


@pytest.fixture(scope="session")
def task_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small synthetic cases as a Decathlon task."""
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="session")
def dataset_dir(task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic cases, prepared: two held out, three folds."""
    from multiprocessing import forkserver

    from rarevox.pipeline.preparation.prepare import prepare

    forkserver.ensure_running()  # with what `forked.LIBRARIES` names, before a stage starts one with less
    folder = tmp_path_factory.mktemp("prepared") / "dataset"
    assert prepare(task_dir, folder, holdout=0.25, folds=3, seed=0) == 0
    return folder


# In float32 on any CPU: `auto` would be bfloat16 where the hardware has it and Numba is missing.
SMALL = (
    "network_def#width=4",
    "patch_size=[16,16,16]",
    "batch_size=2",
    "epoch_length=5",
    "optimizer#lr=0.01",
    "precision#name=float32",
)


@pytest.fixture(scope="session")
def run_dir(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of a narrow HighResNet on the synthetic cases, on the CPU."""
    from rarevox.pipeline.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    status = train(dataset_dir, folder, settings=SMALL, iterations=80, device="cpu")
    assert status == 0
    return folder
