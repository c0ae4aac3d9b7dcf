"""The HTTP side of a service: requests in, answers out, nothing kept of either."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from rarevox.pipeline.console import console
from rarevox.pipeline.dicom.rules import parse_rule
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.service.jobs import BODY, DONE, FAILED, OUTPUTS, QUEUED, RUNNING, Answer, Full, Job, Jobs
from rarevox.pipeline.service.metrics import TYPE, Metrics

LOOK_SECONDS = 0.2
"""So often a waiting request looks whether its client is still there."""
THERE = (
    "there are POST /segment, GET /jobs/ID, GET /jobs/ID/events, GET /jobs/ID/result, DELETE /jobs/ID, GET /health "
    "and GET /metrics"
)
EVENTS = "text/event-stream"
PARAMETERS = ("output", "series", "async")
YES, NO = ("1", "true", "yes"), ("0", "false", "no")
_ACCEPTED = {
    "application/json": "volumes",
    "application/dicom": "seg",
    "application/gzip": "labels",
    "application/x-gzip": "labels",
    "application/x-nifti": "labels",
    "application/octet-stream": "labels",
    "application/*": "labels",
    "*/*": "labels",
}


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


class Service:
    """The routes of a service.

    Args:
        work: makes the answers, in the model's thread.
        about: what ``/health`` tells besides.
        places: jobs that may be there at once.
        most_bytes: of a body.
        seconds: a request may take, uploading and waiting together.
        scratch: a folder for what is uploaded.
        state: ``ok``, or why nothing can be answered at the moment.
        replaced: how many processes that compute have ended and been replaced.
    """

    def __init__(
        self,
        work: Callable[[Job], Answer],
        about: Mapping[str, Any],
        *,
        places: int,
        most_bytes: int,
        seconds: float,
        scratch: Path,
        state: Callable[[], str] = lambda: "ok",
        replaced: Callable[[], int] = lambda: 0,
    ) -> None:
        self.state, self.replaced = state, replaced
        self.about, self.most_bytes, self.seconds, self.scratch = dict(about), most_bytes, seconds, scratch
        self.metrics = Metrics()
        self.jobs = Jobs(work, places, self._ended)

    def _ended(self, job: Job) -> None:
        self.metrics.ended(job.state)
        if job.state == FAILED and job.answer is not None:  # the reason is the client's, and may name its files
            console.print(f"a job failed: {job.answer.status}")
        if job.began is not None and job.finished is not None and job.state == DONE:
            self.metrics.observe(job.finished - job.began)

    async def segment(self, request: Request) -> Response:
        """``POST /segment``: the scan is the body."""
        try:
            response = await self._segment(request)
        except Refused as error:
            response = JSONResponse({"error": error.reason}, error.status, error.headers)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it; counted as nginx does
        self.metrics.count(response.status_code)
        return response

    async def _segment(self, request: Request) -> Response:
        unknown = sorted(set(request.query_params) - set(PARAMETERS))
        if unknown:
            raise Refused(400, f"there is no parameter {unknown[0]!r}; expected {', '.join(PARAMETERS)}")
        waits = request.query_params.get("async", "0").lower()
        if waits not in (*YES, *NO):
            raise Refused(400, f"async is one of {', '.join((*YES, *NO))}")
        output = output_of(request)
        rules = tuple(request.query_params.getlist("series"))
        try:
            for rule in rules:
                parse_rule(rule)
        except RequestError as error:
            raise Refused(400, str(error).replace("--series", "series")) from None
        until = time.monotonic() + self.seconds
        job = await self._uploaded(request, output, rules, until)
        if waits in YES:
            return JSONResponse(self._told(job), 202, {"Location": f"/jobs/{job.identity}"})
        waiting = asyncio.wrap_future(job.ended)
        while not waiting.done():
            if await request.is_disconnected():
                self.jobs.cancel(job)
                raise ClientDisconnect
            if time.monotonic() > until:
                self.jobs.cancel(job)
                raise Refused(504, f"not done within {self.seconds:g} s; ask with async=1 and fetch the result later")
            await asyncio.wait([waiting], timeout=LOOK_SECONDS)
        self.jobs.cancel(job)  # its result is fetched
        return answered(job)

    async def _uploaded(self, request: Request, output: str, rules: tuple[str, ...], until: float) -> Job:
        """A job of the request, its body on the disk, in the queue."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.most_bytes:
            raise Refused(413, f"the body has {length} bytes; {self.most_bytes} are allowed")
        try:
            self.jobs.take_place()
        except Full:
            told = f"all {self.jobs.places} places are taken; try again later"
            raise Refused(503, told, {"Retry-After": str(self._retry_after())}) from None
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            await asyncio.wait_for(self._read(request, folder / BODY), max(until - time.monotonic(), 0.0))
            job = Job(folder, output, rules)
            self.jobs.submit(job)
            return job
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            self.jobs.give_back()
            if isinstance(error, asyncio.TimeoutError):  # before Python 3.11 one of its own
                raise Refused(408, f"the body did not come within {self.seconds:g} s") from None
            if isinstance(error, OSError):
                raise Refused(507, f"the body cannot be kept: {error.strerror}") from None
            raise

    async def _read(self, request: Request, to: Path) -> None:
        size = 0
        with to.open("wb") as handle:
            async for block in request.stream():
                size += len(block)
                if size > self.most_bytes:
                    raise Refused(413, f"the body has more than the {self.most_bytes} bytes that are allowed")
                handle.write(block)
        if not size:
            raise Refused(400, "the body is empty; send a NIfTI file or a ZIP archive of a DICOM series")

    def _retry_after(self) -> int:
        """Seconds until a place may be free: what scans took so far on average."""
        return max(1, round(self.metrics.mean_seconds()))

    async def job(self, request: Request) -> Response:
        """``GET /jobs/ID``: how far a job is; ``DELETE`` drops it."""
        job = self.jobs.find(request.path_params["identity"])
        if job is None:
            return JSONResponse({"error": "no such job; results are kept for ten minutes"}, 404)
        if request.method == "DELETE":
            self.jobs.cancel(job)
            return Response(status_code=204)
        return JSONResponse(self._told(job))

    async def result(self, request: Request) -> Response:
        """``GET /jobs/ID/result``: what was asked for, once; 202 while it is not there."""
        job = self.jobs.find(request.path_params["identity"])
        if job is None:
            return JSONResponse({"error": "no such job; results are kept for ten minutes and given once"}, 404)
        if not job.ended.done():
            return JSONResponse(self._told(job), 202, {"Retry-After": "1"})
        self.jobs.cancel(job)
        return answered(job)

    async def events(self, request: Request) -> Response:
        """``GET /jobs/ID/events``: how far a job is, as server-sent events, one for each change, until it has ended."""
        job = self.jobs.find(request.path_params["identity"])
        if job is None:
            return JSONResponse({"error": "no such job; results are kept for ten minutes"}, 404)
        return StreamingResponse(self._changes(job), headers={"Cache-Control": "no-store"}, media_type=EVENTS)

    async def _changes(self, job: Job) -> AsyncIterator[str]:
        before: dict[str, Any] = {}
        while True:
            ended, told = job.ended.done(), self._told(job)
            told.pop("seconds", None)  # whoever listens has a clock
            if told != before:
                yield f"data: {json.dumps(told)}\n\n"
            if ended:
                return
            before = told
            await asyncio.sleep(LOOK_SECONDS)

    def _told(self, job: Job) -> dict[str, Any]:
        told: dict[str, Any] = {"id": job.identity, "state": job.state}
        if job.state == QUEUED:
            told["before"] = self.jobs.position(job)
        if job.state == RUNNING and job.began is not None:
            told["seconds"] = round(time.monotonic() - job.began, 1)
        return told

    async def health(self, request: Request) -> Response:
        """``GET /health``: what is served, and whether there is room; 503 while nothing can be answered."""
        state = self.state()
        told = {"status": state, **self.about, "taken": self.jobs.taken, "places": self.jobs.places}
        return JSONResponse(told, 200 if state == "ok" else 503)

    async def figures(self, request: Request) -> Response:
        """``GET /metrics``."""
        text = self.metrics.text(queued=self.jobs.taken, places=self.jobs.places, replaced=self.replaced())
        return PlainTextResponse(text, media_type=TYPE)


def output_of(request: Request) -> str:
    """What a request asks for: ``?output=``, else by ``Accept``, else labels.

    Raises:
        Refused: something else.
    """
    asked = request.query_params.get("output")
    if asked is not None:
        if asked not in OUTPUTS:
            raise Refused(400, f"output is one of {', '.join(OUTPUTS)}")
        return asked
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")]
    found = next((_ACCEPTED[part] for part in accepted if part in _ACCEPTED), None)
    if found is None:
        raise Refused(406, f"what is accepted cannot be made; expected one of {', '.join(_ACCEPTED)}")
    return found


def answered(job: Job) -> Response:
    """The response of a job that has ended."""
    answer = job.answer
    if answer is None:
        return JSONResponse({"error": "the job was cancelled"}, 410)
    named = {"Content-Disposition": f'attachment; filename="{answer.name}"'} if answer.name else {}
    retry = {"Retry-After": "30"} if answer.status == 503 else {}
    return Response(answer.body, answer.status, named | retry, answer.media_type)


async def _told(_: Request, error: Exception) -> Response:
    """No such address, or not asked for in this way: what there is."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": THERE}, error.status_code, error.headers)


def app_of(service: Service, hosts: list[str]) -> Starlette:
    """The application.

    Args:
        service: its routes.
        hosts: names by which it may be asked for, against pages that let a name point to this machine; ``*`` for any.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        yield
        await asyncio.to_thread(service.jobs.close)

    routes = [
        Route("/segment", service.segment, methods=["POST"]),
        Route("/jobs/{identity}", service.job, methods=["GET", "DELETE"]),
        Route("/jobs/{identity}/events", service.events, methods=["GET"]),
        Route("/jobs/{identity}/result", service.result, methods=["GET"]),
        Route("/health", service.health, methods=["GET"]),
        Route("/metrics", service.figures, methods=["GET"]),
    ]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan, exception_handlers={404: _told, 405: _told})
