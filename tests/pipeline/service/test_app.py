"""The service's manners, with a model that only pretends: queue, bounds, timeouts, clients that leave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
httpx = pytest.importorskip("httpx", reason="a client is needed to test the service")

from rarevox.pipeline.service.app import Service, app_of  # noqa: E402
from rarevox.pipeline.service.jobs import Answer, Job  # noqa: E402
from tests.pipeline.service.serving import running  # noqa: E402

HOSTS = ["127.0.0.1"]


class Pretended:
    """Answers with what was sent, when it may; ``begun`` counts."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.begun = 0

    def __call__(self, job: Job) -> Answer:
        self.begun += 1
        assert self.may.wait(20)
        body = (job.folder / "body").read_bytes()
        if body == b"crash":
            raise RuntimeError("a secret of the server")
        return Answer(body[::-1], "application/gzip", 200 if body != b"bad" else 422)


@pytest.fixture
def model() -> Pretended:
    return Pretended()


@pytest.fixture
def seconds() -> float:
    """The longest that a request may take; short only where a test waits for its end."""
    return 60.0


@pytest.fixture
def address(model: Pretended, tmp_path: Path, seconds: float) -> Iterator[str]:
    service = Service(model, {"structures": ["a"]}, places=2, most_bytes=1000, seconds=seconds, scratch=tmp_path)
    with running(app_of(service, HOSTS)) as address:
        yield address
        model.may.set()
    assert list(tmp_path.iterdir()) == []


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does; a bound only against a hang."""
    end = time.time() + 20
    while not true() and time.time() < end:
        time.sleep(0.01)
    assert true()


def taken(address: str) -> int:
    return int(httpx.get(f"{address}/health").json()["taken"])


def test_what_is_sent_is_answered(address: str) -> None:
    done = httpx.post(f"{address}/segment", content=b"abc")
    assert (done.status_code, done.content, done.headers["content-type"]) == (200, b"cba", "application/gzip")
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "structures": ["a"], "taken": 0, "places": 2}


@pytest.mark.parametrize(
    ("query", "told"),
    [("ouput=volumes", "there is no parameter 'ouput'; expected output"), ("async=perhaps", "async is one of 1, true")],
)
def test_what_is_misspelt_is_refused(address: str, query: str, told: str) -> None:
    done = httpx.post(f"{address}/segment?{query}", content=b"abc")
    assert (done.status_code, told in done.json()["error"]) == (400, True)
    assert taken(address) == 0


def test_a_full_queue_says_when_to_come_again(address: str, model: Pretended) -> None:
    model.may.clear()
    waiting = [httpx.post(f"{address}/segment?async=1", content=b"abc").json()["id"] for _ in range(2)]
    refused = httpx.post(f"{address}/segment", content=b"abc")
    assert (refused.status_code, "2 places" in refused.json()["error"]) == (503, True)
    assert int(refused.headers["retry-after"]) >= 1
    model.may.set()
    for identity in waiting:
        until(lambda identity=identity: httpx.get(f"{address}/jobs/{identity}").json()["state"] == "done")
    assert httpx.post(f"{address}/segment", content=b"abc").status_code == 200


def test_a_job_tells_how_far_it_is_and_gives_its_result_once(address: str, model: Pretended) -> None:
    model.may.clear()
    made = httpx.post(f"{address}/segment?async=1", content=b"abc")
    assert (made.status_code, made.headers["location"]) == (202, f"/jobs/{made.json()['id']}")
    place = address + made.headers["location"]
    second = httpx.post(f"{address}/segment?async=1", content=b"xyz").json()
    until(lambda: httpx.get(place).json()["state"] == "running")
    assert (second["state"], second["before"]) == ("queued", 1)
    assert httpx.get(f"{place}/result").status_code == 202
    model.may.set()
    until(lambda: httpx.get(place).json()["state"] == "done")
    assert httpx.get(f"{place}/result").content == b"cba"
    assert httpx.get(f"{place}/result").status_code == httpx.get(place).status_code == 404


def test_a_jobs_changes_come_as_events_until_it_has_ended(address: str, model: Pretended) -> None:
    model.may.clear()
    first = httpx.post(f"{address}/segment?async=1", content=b"abc").headers["location"]
    until(lambda: model.begun == 1)
    second = httpx.post(f"{address}/segment?async=1", content=b"xyz").headers["location"]
    told: list[dict[str, Any]] = []
    with httpx.stream("GET", f"{address}{second}/events", timeout=20) as events:
        assert (events.status_code, events.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        for line in events.iter_lines():
            if line:
                assert line.startswith("data: ")
                told.append(json.loads(line.removeprefix("data: ")))
            model.may.set()
    states = [one["state"] for one in told]
    assert (states[0], told[0]["before"], states[-1]) == ("queued", 1, "done")
    assert set(states[1:-1]) <= {"queued", "running"}
    assert all(one["id"] == second.rsplit("/", 1)[1] for one in told)
    assert httpx.get(f"{address}{first}/result").content == b"cba", "who listens takes nothing away"
    assert httpx.get(f"{address}/jobs/x/events").status_code == 404


def test_a_job_that_is_dropped_is_not_computed(address: str, model: Pretended) -> None:
    model.may.clear()
    httpx.post(f"{address}/segment?async=1", content=b"abc")
    until(lambda: model.begun == 1)
    second = httpx.post(f"{address}/segment?async=1", content=b"abc").headers["location"]
    assert httpx.delete(address + second).status_code == 204
    model.may.set()
    until(lambda: taken(address) == 0)
    assert model.begun == 1


def test_a_client_that_leaves_frees_its_place(address: str, model: Pretended) -> None:
    model.may.clear()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/segment", content=b"abc", timeout=0.3)
    with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1]))) as half:
        half.sendall(b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\nabc")
        until(lambda: taken(address) == 2)
    until(lambda: taken(address) == 1)  # the half body's place; the other's job is running
    model.may.set()
    until(lambda: taken(address) == 0)


@pytest.mark.parametrize("seconds", [2.0])
def test_who_sends_too_slowly_or_waits_too_long_is_told(address: str, model: Pretended) -> None:
    with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=20) as slow:
        slow.sendall(b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\nabc")
        model.may.clear()
        late = httpx.post(f"{address}/segment", content=b"abc", timeout=20)
        assert (late.status_code, "async=1" in late.json()["error"]) == (504, True)
        assert b" 408 " in slow.recv(1000).splitlines()[0]
    model.may.set()
    until(lambda: taken(address) == 0)


def test_bodies_are_bounded_whether_or_not_they_say_their_length(address: str) -> None:
    assert httpx.post(f"{address}/segment", content=bytes(1001)).status_code == 413
    assert httpx.post(f"{address}/segment", content=(bytes(300) for _ in range(4))).status_code == 413
    assert httpx.post(f"{address}/segment", content=b"").status_code == 400
    assert taken(address) == 0


def test_wrong_requests_are_told(address: str) -> None:
    assert httpx.post(f"{address}/segment?output=film", content=b"a").status_code == 400
    assert httpx.post(f"{address}/segment", content=b"a", headers={"Accept": "image/png"}).status_code == 406
    assert httpx.post(f"{address}/segment?series=colour=red", content=b"a").status_code == 400
    for place, status in (("segment", 405), ("", 404), ("help", 404)):
        told = httpx.get(f"{address}/{place}")
        assert (told.status_code, "there are POST /segment" in told.json()["error"]) == (status, True)
    assert httpx.get(f"{address}/jobs/x").status_code == 404
    assert httpx.get(f"{address}/health", headers={"Host": "evil.example"}).status_code == 400


def test_a_crash_ends_one_request_and_tells_no_secret(address: str) -> None:
    done = httpx.post(f"{address}/segment", content=b"crash")
    assert (done.status_code, "secret" in done.text) == (500, False)
    assert httpx.post(f"{address}/segment", content=b"bad").status_code == 422
    assert httpx.post(f"{address}/segment", content=b"abc").status_code == 200
    figures = httpx.get(f"{address}/metrics")
    assert figures.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = figures.text.splitlines()
    assert {f'rarevox_requests_total{{status="{code}"}} 1' for code in (200, 422, 500)} <= set(lines)
    assert "rarevox_segmentation_seconds_count 1" in lines
