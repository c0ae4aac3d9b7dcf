"""The service stage: a run answers on HTTP until it is interrupted."""

from __future__ import annotations

import ipaddress
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import version
from rarevox.pipeline.console import console
from rarevox.pipeline.dicom.codes import given_codes
from rarevox.pipeline.dicom.stated import stated_codes
from rarevox.pipeline.entries import regions_of
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.extras import install
from rarevox.pipeline.inference.calls.kept import origin
from rarevox.pipeline.inference.calls.trained import Trained
from rarevox.pipeline.service.worker import Answers, Supervised

LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    queue: int = 8,
    max_mb: int = 1024,
    timeout: float = 600.0,
    device: str = "auto",
    settings: Sequence[str] = (),
    others: Sequence[str | Path] = (),
    codes: str | Path | None = None,
    trust: bool = False,
) -> int:
    """Serve a run until SIGINT or SIGTERM; see ``docs/service.md`` for what it answers.

    Args:
        run: the run folder.
        host: the address to listen on; others than loopback reach whoever reaches this machine.
        port: 0 takes a free one.
        queue: scans that may be there at once, uploading, waiting or computed.
        max_mb: of an upload, in 10⁶ bytes.
        timeout: seconds that a request may take.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's inference configuration.
        others: further runs of an ensemble.
        codes: a file of structures' codes, see :func:`rarevox.pipeline.dicom.codes.given_codes`.
        trust: take the run's configuration whatever it builds.

    Returns:
        Never before a signal ends it: KeyboardInterrupt after SIGINT (status 130), SystemExit after SIGTERM (143).

    Raises:
        RequestError: no run, one that normalises inside masks, the extra ``serve`` is not installed, an address that
            cannot be listened on.
    """
    uvicorn = _uvicorn()
    runs = Trained.of([run, *others], settings, trust=trust)
    _require_no_masks(runs)
    runs.tell_unmoved()
    made = origin(runs.folders, runs.settings)
    given = given_codes(stated_codes(runs.folders[0], codes), "the codes")
    about = {
        "structures": list(runs.config["structures"]),
        "channels": list(runs.config["channels"]),
        "models": made["models"],
        "version": version("rarevox"),
    }
    # The address comes first: that it is taken is told before the network is loaded.
    with _bound(host, port) as bound, tempfile.TemporaryDirectory(prefix="rarevox-serve-") as scratch:
        answers = Answers(runs.networks(device), made, max_mb * 1_000_000, given or {})
        model = Supervised(answers, timeout)
        try:
            model.open()
            server = server_of(uvicorn, model, about, Path(scratch), host=host, port=port, queue=queue)
            if not is_loopback(host):
                console.say("[yellow]anyone who reaches {} may use the service: it asks for no password[/yellow]", host)
            _listen(server, bound, host, run)
        finally:
            model.close()
    return 0


def server_of(
    uvicorn: Any, model: Supervised, about: Mapping[str, Any], scratch: Path, *, host: str, port: int, queue: int
) -> Any:
    """A uvicorn server of a model; ``run`` runs it."""
    from rarevox.pipeline.service.app import Service, app_of

    service = Service(
        model,
        about,
        places=queue,
        most_bytes=model.answers.most_bytes,
        seconds=model.seconds,
        scratch=scratch,
        state=model.state,
        replaced=lambda: model.replaced,
    )
    config = uvicorn.Config(
        app_of(service, LOOPBACK if is_loopback(host) else ["*"]),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        limit_concurrency=8 * queue + 64,
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    return uvicorn.Server(config)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _uvicorn() -> Any:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise RequestError(f"rarevox serve needs starlette and uvicorn: {install('serve')} ({error})") from error
    return uvicorn


def _require_no_masks(runs: Trained) -> None:
    """Refuse runs that normalise inside a mask: none comes with a request, and each would be refused.

    Raises:
        RequestError: there is such a run.
    """
    for folder, own in zip(runs.folders, runs.configs, strict=True):
        if "mask" in regions_of(own["normalisation"]):
            raise RequestError(
                f"{folder} normalises inside a mask, and requests to rarevox serve bring none; serve a run that "
                "normalises without masks, or segment with rarevox predict --masks"
            )


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, on which nothing listens yet: who asks early is refused and does not wait.

    Raises:
        RequestError: it cannot be had.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        reason = error.strerror or error
        raise RequestError(f"cannot listen on {host}, port {port} ({reason}); give another --port or --host") from error
    return bound


def _listen(server: Any, bound: socket.socket, host: str, run: str | Path) -> None:
    """Run the server, its address told."""
    shown = f"[{host}]" if ":" in host else host
    console.print(f"{run} answers on http://{shown}:{bound.getsockname()[1]}; Ctrl+C ends it")
    if threading.current_thread() is threading.main_thread():  # uvicorn raises a signal again once all is answered
        signal.signal(signal.SIGTERM, _terminated)
        # A shell starts what runs in its background with SIGINT ignored; who sends it to a service means it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    server.run([bound])


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
