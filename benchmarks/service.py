"""What a request to ``rarevox serve`` costs beside the network's own time, and whether memory stays flat.

``python benchmarks/service.py RUN SCAN`` starts the service on a free port of 127.0.0.1, its model in a process of its
own as ``rarevox serve`` has it, and alternates between the network on the preprocessed scan in this process (what
``predict`` spends in it) and the same scan as a request, from the client's first byte to its last. The first of each,
which loads kernels, is left out. Then it sends many requests, every tenth of them corrupt, and prints resident memory
of the model's process before and after.

    median network time, median time of a request, their ratio; resident memory after 10 and after all requests
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py there.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import httpx  # noqa: E402
import uvicorn  # noqa: E402

from rarevox.pipeline.inference.calls.kept import origin  # noqa: E402
from rarevox.pipeline.inference.calls.networks import Networks  # noqa: E402
from rarevox.pipeline.inference.segment import Segmenter  # noqa: E402
from rarevox.pipeline.service.serve import server_of  # noqa: E402
from rarevox.pipeline.service.worker import Answers, Supervised  # noqa: E402

MOST_BYTES = 1_000_000_000


def resident_mb(process: int) -> float:
    """Resident memory of a process (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


def timed(client: httpx.Client, address: str, body: bytes) -> float:
    """Seconds that a request takes, of a client that is there (to load certificates takes it some 30 ms)."""
    began = time.perf_counter()
    client.post(f"{address}/segment", content=body).raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--requests", type=int, default=100, help="of the second part; 0 leaves it out")
    arguments = parser.parse_args()
    segmenter = Segmenter(arguments.run, device="cpu")
    made = origin([arguments.run], [])
    answers = Answers(Networks((str(arguments.run.absolute()),), "cpu"), made, MOST_BYTES)
    model = Supervised(answers, 3600.0)
    model.open()
    data = segmenter.read({"case": "a", "image": str(arguments.scan)})
    body = arguments.scan.read_bytes()
    with tempfile.TemporaryDirectory() as scratch, httpx.Client(timeout=None) as client:
        server = server_of(uvicorn, model, {}, Path(scratch), host="127.0.0.1", port=0, queue=8)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        timed(client, address, body)
        segmenter.segment(data)
        (worker,) = model.engine.ids()  # type: ignore[attr-defined]
        network, request = [], []
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            segmenter.segment(data)
            network.append(time.perf_counter() - began)
            request.append(timed(client, address, body))
        ratio = statistics.median(request) / statistics.median(network)
        print(f"network {statistics.median(network):.3f} s, request {statistics.median(request):.3f} s: {ratio:.3f}")
        before = 0.0
        right = refused = 0
        for number in range(arguments.requests):
            corrupt = number % 10 == 7
            done = client.post(f"{address}/segment", content=body[: len(body) // 2] if corrupt else body)
            right += not corrupt and done.status_code == 200
            refused += corrupt and done.status_code == 422
            before = resident_mb(worker) if number == 9 else before
        if arguments.requests:
            after = resident_mb(worker)
            print(f"{right} right, {refused} refused; resident {before:.0f} MB after 10, {after:.0f} MB after all")
        server.should_exit = True
        thread.join(20)
        model.close()


if __name__ == "__main__":
    main()
