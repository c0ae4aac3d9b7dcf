"""A trained run behind a real server: the same labels as `predict`, corrupt uploads refused, memory flat."""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import os
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
httpx = pytest.importorskip("httpx", reason="a client is needed to test the service")
pydicom = pytest.importorskip("pydicom", reason="needs the extra 'dicom'")

from rarevox.pipeline.compose import write_yaml  # noqa: E402
from rarevox.pipeline.errors import RequestError  # noqa: E402
from rarevox.pipeline.inference.calls.kept import origin  # noqa: E402
from rarevox.pipeline.inference.segment import Segmentation, Segmenter  # noqa: E402
from rarevox.pipeline.plain_data import read_yaml  # noqa: E402
from rarevox.pipeline.service.app import Service, app_of  # noqa: E402
from rarevox.pipeline.service.jobs import Answer, Job  # noqa: E402
from rarevox.pipeline.service.model import Model  # noqa: E402
from rarevox.pipeline.service.serve import serve  # noqa: E402
from rarevox.pipeline.service.worker import Desk  # noqa: E402
from tests import forked  # noqa: E402
from tests.pipeline.dicom.series import NAME, NUMBER, write  # noqa: E402
from tests.pipeline.service.serving import running  # noqa: E402


@pytest.fixture(scope="module")
def address(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # In this process, so that what stays in memory can be counted; the command's own process comes below.
    model = Desk(Model(Segmenter(run_dir, device="cpu"), origin([run_dir], []), 1_000_000))
    scratch = tmp_path_factory.mktemp("scratch")
    service = Service(
        lambda job: model.answer(job.wanted), {}, places=16, most_bytes=1_000_000, seconds=60.0, scratch=scratch
    )
    with running(app_of(service, ["127.0.0.1"])) as address:
        yield address
    assert list(scratch.iterdir()) == []


@pytest.fixture(scope="module")
def scan(task_dir: Path) -> Path:
    return task_dir / "imagesTr" / "case_00.nii.gz"


@pytest.fixture(scope="module")
def expected(run_dir: Path, scan: Path) -> np.ndarray:
    (found,) = Segmenter(run_dir, device="cpu")([{"case": "a", "image": str(scan)}])
    assert found.labels is not None
    return found.labels


def labels_in(content: bytes) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in folder.iterdir():
            packed.write(path, f"{NAME}/{path.name}")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def series(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    voxels = np.clip(np.asarray(nib.load(scan).dataobj), -1000, 1000).round()
    return write(tmp_path_factory.mktemp("dicom") / "series", voxels, spacing_mm=(1, 1, 1.5))


def test_a_nifti_file_gives_the_labels_of_predict(address: str, scan: Path, expected: np.ndarray) -> None:
    done = httpx.post(f"{address}/segment", content=scan.read_bytes(), timeout=60)
    assert (done.status_code, done.headers["content-type"]) == (200, "application/gzip")
    found = labels_in(done.content)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    np.testing.assert_array_equal(found.affine, nib.load(scan).affine)
    told = httpx.post(
        f"{address}/segment", content=scan.read_bytes(), headers={"Accept": "application/json"}, timeout=60
    )
    volumes = {"ball": (expected == 1).sum() * 1.5e-3, "box": (expected == 2).sum() * 1.5e-3}
    assert told.json()["volume_ml"] == pytest.approx(volumes, abs=5e-5)  # four digits


def test_a_zipped_series_gives_labels_segmentation_and_report(address: str, series: Path, tmp_path: Path) -> None:
    body = zipped(series)
    labels = labels_in(httpx.post(f"{address}/segment", content=body, timeout=60).content)
    done = httpx.post(f"{address}/segment", content=body, headers={"Accept": "application/dicom"}, timeout=60)
    assert (done.status_code, done.headers["content-type"]) == (200, "application/dicom")
    segmentation = pydicom.dcmread(io.BytesIO(done.content))
    assert (segmentation.Modality, segmentation.PatientID) == ("SEG", NUMBER)
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == ["ball", "box"]
    bits = segmentation.pixel_array
    assert int(bits.sum()) == int((np.asarray(labels.dataobj) > 0).sum())
    report = httpx.post(f"{address}/segment?output=report", content=body, timeout=60)
    assert pydicom.dcmread(io.BytesIO(report.content)).Modality == "SR"
    chosen = httpx.post(f"{address}/segment?series=modality=MR&output=volumes", content=body, timeout=60)
    assert chosen.status_code == 200
    none = httpx.post(f"{address}/segment?series=modality=CT", content=body, timeout=60)
    assert (none.status_code, NAME in none.text) == (422, False)
    assert "0 scans in the archive fit" in none.json()["error"]


def alive() -> dict[str, int]:
    """How many objects there are that hold what belongs to a request."""
    gc.collect()
    kinds = (Job, Answer, Segmentation, torch.Tensor)
    found = gc.get_objects()
    return {
        kind.__name__: sum(type(one) is kind or type(one).__name__ == "MetaTensor" for one in found) for kind in kinds
    }


def test_objects_of_dicom_cannot_be_made_of_nifti(address: str, scan: Path) -> None:
    done = httpx.post(f"{address}/segment?output=seg", content=scan.read_bytes(), timeout=60)
    assert (done.status_code, "DICOM series alone" in done.json()["error"]) == (406, True)


def test_of_a_hundred_requests_the_corrupt_ones_are_refused(
    address: str, scan: Path, series: Path, expected: np.ndarray
) -> None:
    """Ten of ten kinds of damage among ninety sound ones, eight clients at once; what stays in memory is bounded."""
    sound, packed = scan.read_bytes(), zipped(series)
    flipped = bytearray(sound)
    flipped[len(sound) // 2] ^= 0xFF
    lies = bytearray(gzip.decompress(sound))
    lies[42:44] = (30000).to_bytes(2, "little")  # more voxels than there are
    corrupt = [
        sound[: len(sound) // 2],
        bytes(flipped),
        gzip.compress(bytes(lies)),
        gzip.compress(b"no image at all"),
        b"<html>not found</html>",
        packed[: len(packed) // 2],
        packed[:200] + bytes(100) + packed[300:],
        b"PK\x05\x06" + bytes(18),
        gzip.compress(gzip.compress(sound)),
        gzip.decompress(sound)[:352],
    ]
    bodies = [corrupt[n // 10] if n % 10 == 7 else sound for n in range(100)]

    def ask(body: bytes) -> tuple[int, bytes]:
        while (done := client.post(f"{address}/segment", content=body)).status_code == 503:
            time.sleep(0.05)
        return done.status_code, done.content

    with httpx.Client(timeout=120) as client, ThreadPoolExecutor(8) as pool:
        first = list(pool.map(ask, bodies[:30]))
        before = alive()
        answers = first + list(pool.map(ask, bodies[30:]))
    after = alive()
    for n, (status, content) in enumerate(answers):
        if n % 10 == 7:
            assert status in (415, 422), content
            assert b'"error": "' in content
            assert b"/tmp" not in content
        else:
            assert status == 200, content
            np.testing.assert_array_equal(np.asarray(labels_in(content).dataobj), expected)
    # Of the 70 requests in between, not one's arrays or answer may stay.
    assert all(after[kind] <= before[kind] for kind in after), (before, after)


def children_of(process: int) -> set[int]:
    """The processes below one, whatever they are."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    found, more = set(), {process}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in more} - found
    return found - {process}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes are found in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_nothing_stays(
    run_dir: Path, tmp_path: Path, scan: Path, expected: np.ndarray, number: int, status: int
) -> None:
    """The command, its process that computes killed on the way; what was uploaded is gone, and no process stays."""
    command = ["-m", "rarevox.pipeline.cli", "serve", str(run_dir), "--port", "0", "--device", "cpu"]
    process = forked.Forked(command, env={**os.environ, "TMPDIR": str(tmp_path)})
    until = time.time() + 120
    while "answers on http://127.0.0.1:" not in process.stderr() and time.time() < until and process.is_alive():
        time.sleep(0.05)
    assert len(list(tmp_path.glob("rarevox-serve-*"))) == 1
    address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr())
    assert address
    for killed in (False, True):
        if killed:  # the youngest is the worker; the others import for it and count what is shared
            os.kill(max(children_of(process.pid)), signal.SIGKILL)
        done = httpx.post(f"{address[0]}/segment", content=scan.read_bytes(), timeout=60)
        np.testing.assert_array_equal(np.asarray(labels_in(done.content).dataobj), expected)
    below = children_of(process.pid)
    os.kill(process.pid, number)
    done = process.wait(60)
    assert done.returncode == status, done.stderr
    assert not list(tmp_path.glob("rarevox-serve-*"))
    assert "Traceback" not in done.stderr
    until = time.time() + 20
    while any(Path(f"/proc/{one}").exists() for one in below) and time.time() < until:
        time.sleep(0.05)
    assert not [one for one in below if Path(f"/proc/{one}").exists()]


def test_an_address_that_is_taken_is_told(run_dir: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RequestError, match="cannot listen on 127.0.0.1"):
            serve(run_dir, port=other.getsockname()[1], device="cpu")


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_run_that_normalises_in_a_mask_is_refused_before_the_address_is_taken(
    ensemble: bool, run_dir: Path, tmp_path: Path
) -> None:
    """Requests bring no mask, so that none could be answered; that the address is taken would be told otherwise."""
    import socket

    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    file = run / "configs" / "inference.yaml"
    config = read_yaml(file)
    config["normalisation"]["region"] = "mask"
    file.write_text(write_yaml(config), encoding="utf-8")
    runs = (run_dir, [run]) if ensemble else (run, [])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RequestError, match=f"^{re.escape(str(run))} normalises inside a mask, and requests to"):
            serve(runs[0], others=runs[1], port=other.getsockname()[1], device="cpu")
        # A setting in its place is the caller's to make.
        with pytest.raises(RequestError, match="cannot listen on"):
            serve(run, settings=["normalisation#region=image"], port=other.getsockname()[1], device="cpu")
