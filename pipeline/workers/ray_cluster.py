"""A connection to a Ray cluster, refused in a sentence where there is none or it is too small."""

from __future__ import annotations

import logging
import socket
from typing import Any

from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.extras import install

ANSWER_SECONDS = 10.0
"""So long a cluster may take to answer."""


def connected(address: str | None) -> Any:
    """The module ``ray``, connected to a cluster; ``ray.shutdown()`` ends that.

    Args:
        address: of the cluster; None starts one on this machine, which ends with the connection.

    Raises:
        RequestError: Ray is not installed, this process is connected already, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise RequestError(f"--engine ray needs the package ray: {install('ray')}") from None
    if ray.is_initialized():
        raise RequestError("this process is connected to a Ray cluster already; end that connection first")
    _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, OSError) as error:
        raise RequestError(f"no Ray cluster answers at --address {address}: {reason_of(error)}") from error
    return ray


def _require_answer(address: str | None) -> None:
    """Refuse an address at which nobody listens, which Ray would go on calling for minutes."""
    host, colon, port = (address or "").rpartition("//")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise RequestError(f"no Ray cluster answers at --address {address}: {error.strerror or error}") from error


def require_room(ray: Any, cpus: float, gpus: float, *, what: str, remedy: str) -> None:
    """Refuse what no node can ever give, for which Ray would wait without end.

    Args:
        ray: the module, connected.
        cpus: asked for.
        gpus: asked for.
        what: asks for it, at the beginning of the message.
        remedy: at its end.

    Raises:
        RequestError: no node has so much.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        most = max((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
        raise RequestError(
            f"{what} takes {cpus:g} CPUs and {gpus:g} GPUs, and the largest node has {most[0]:g} and {most[1]:g}; "
            f"{remedy}"
        )
