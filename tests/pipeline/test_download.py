"""Downloads from a local server: whole or nothing, and every way to fail is one sentence."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from monai.apps.datasets import DecathlonDataset

from rarevox.pipeline.cli import main
from rarevox.pipeline.download import download
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.prepare import prepare
from tests import forked
from tests.conftest import write_task

TASK = "Task04_Hippocampus"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing on the test's standard error."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a local server gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def archive(path: Path, task: Path, name: str = TASK, mode: str = "w") -> str:
    """Pack a task's folder; returns the archive's MD5."""
    with tarfile.open(path, mode) as tar:
        tar.add(task, arcname=name)
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_a_task_arrives_whole_and_can_be_prepared(
    served: tuple[Path, str], tmp_path: Path, suffix: str, mode: str
) -> None:
    folder, address = served
    md5 = archive(folder / f"x{suffix}", write_task(tmp_path / "task"), mode=mode)
    assert download(TASK, tmp_path / "data", url=f"{address}/x{suffix}", md5=md5) == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == [TASK]
    assert prepare(tmp_path / "data" / TASK, tmp_path / "out") == 0


def test_the_task_s_own_address_and_md5_are_monai_s(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    md5 = archive(folder / "a.tar", write_task(tmp_path / "task"))
    monkeypatch.setitem(DecathlonDataset.resource, TASK, f"{address}/a.tar")
    monkeypatch.setitem(DecathlonDataset.md5, TASK, md5)
    assert download(TASK, tmp_path / "data") == 0
    assert (tmp_path / "data" / TASK / "dataset.json").is_file()


def test_what_is_there_is_left(tmp_path: Path) -> None:
    write_task(tmp_path / TASK, cases=1)
    assert download(TASK, tmp_path, url="http://127.0.0.1:9/never.tar") == 0
    (tmp_path / "Task02_Heart").mkdir()
    with pytest.raises(RequestError, match="holds no dataset.json"):
        download("Task02_Heart", tmp_path)


def _evil(path: Path) -> str:
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("../escaped.txt")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"no"))
    return hashlib.md5(path.read_bytes()).hexdigest()


def _text(path: Path) -> str:
    path.write_text("not an archive")
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: "0" * 32, "cannot download .*a.tar: .*[Nn]ot [Ff]ound"),
        (lambda path: _text(path) and "0" * 32, "has another MD5 than 0000"),
        (_text, "cannot extract"),
        (_evil, "cannot extract"),
    ],
    ids=["missing", "damaged", "no archive", "entry outside the folder"],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(
    served: tuple[Path, str], tmp_path: Path, make: Callable[[Path], str], message: str
) -> None:
    folder, address = served
    with pytest.raises(RequestError, match=message) as caught:
        download(TASK, tmp_path / "data", url=f"{address}/a.tar", md5=make(folder / "a.tar"))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []
    assert not list(tmp_path.rglob("escaped.txt"))


def test_an_archive_of_another_task(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    md5 = archive(folder / "a.tar", write_task(tmp_path / "task", cases=1), name="Task02_Heart")
    with pytest.raises(RequestError, match=r"holds no Task04_Hippocampus/dataset\.json"):
        download(TASK, tmp_path / "data", url=f"{address}/a.tar", md5=md5)


@pytest.mark.parametrize(
    ("task", "url", "message"),
    [
        ("Task04_Hipocampus", None, "did you mean 'Task04_Hippocampus'"),
        (TASK, "http://127.0.0.1:9/page.html", "names no archive"),
        (TASK, "http://127.0.0.1:9/a.tar", "cannot download .*refused"),
    ],
)
def test_wrong_requests(tmp_path: Path, task: str, url: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        download(task, tmp_path, url=url)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["download", "Task99", "--to", str(tmp_path)])
    assert ended.value.code == 2
    assert "no task is called 'Task99'" in capsys.readouterr().err


def test_a_failure_is_told_once(tmp_path: Path) -> None:
    words = ["download", TASK, "--to", str(tmp_path), "--url", "http://127.0.0.1:9/a.tar", "--md5", "0" * 32]
    said = forked.run(["-c", "import sys; from rarevox.pipeline.cli import main; main(sys.argv[1:])", *words])
    assert said.returncode == 2 and said.stdout == ""
    first, second = said.stderr.strip().split("\n")
    assert first == "downloading http://127.0.0.1:9/a.tar"
    assert second.startswith("rarevox: cannot download http://127.0.0.1:9/a.tar: ")
