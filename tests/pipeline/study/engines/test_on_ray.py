"""A real Ray cluster of two nodes, one of which is killed in the middle: the rows are those of one machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.study import study
from tests.pipeline.study.test_study import figures

ray = pytest.importorskip("ray", reason="needs the extra ray")
MEMORY = 80 * 2**20
"""Of each node's object store, the least that Ray takes."""
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
"""Ray finds out that a node has gone by five calls in a row that nobody answers, by default one every three seconds."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without a CPU; to start it and to end it takes seconds."""
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": MEMORY,
            "include_dashboard": False,
            "no_monitor": True,  # which would ask for more nodes
            "_system_config": HEALTH,
        },
    )
    yield found
    found.shutdown()


def descendants(parent: int) -> list[int]:
    """The processes below one."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            above = int(process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(above, []).append(int(process.name))
    found = [parent]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def at_work(raylet: int, study: Path) -> tuple[int, str] | None:
    """A process of a node that has begun to train a cell, by the claim that it holds open, and the cell."""
    for process in descendants(raylet):
        with suppress(OSError):
            for link in Path(f"/proc/{process}/fd").iterdir():
                file = link.readlink()
                cell = study / "cells" / file.stem
                begun = (cell / "logs" / "train.jsonl").is_file() and not (cell / "cell.json").exists()
                if file.parent == study / "claims" and begun:
                    return process, file.stem
    return None


def test_what_no_node_can_give_is_refused(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, cluster: Any
) -> None:
    """Ray itself would wait for such a node without end."""
    file, _ = tiny_study
    places = Places(engine="ray", address=cluster.address, cpus_per_cell=64.0)
    with pytest.raises(RequestError, match="a cell takes 64 CPUs"):
        study(file, dataset_dir, tmp_path / "out", places=places, device="cpu")
    with pytest.raises(RequestError, match="no Ray cluster answers at"):
        study(file, dataset_dir, tmp_path / "out", places=Places(engine="ray", address="127.0.0.1:1"), device="cpu")


@pytest.mark.slow
def test_a_node_that_is_killed_changes_no_row(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, cluster: Any
) -> None:
    """Two nodes of one CPU beside a head without any; the first that is seen to train a cell is killed.

    The process is stopped before the node goes, so that it cannot get done in between. Its cell has no row then, and
    the other node, the only one left with a CPU, is the one that brings it to its row.
    """
    file, whole = tiny_study
    output = tmp_path / "out"
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    raylets = {node: node.all_processes["raylet"][0].process.pid for node in nodes}
    lost: list[str] = []

    def kill() -> None:
        found = waited_for(
            lambda: next(((node, *work) for node in nodes if (work := at_work(raylets[node], output))), None)
        )
        if found is None:
            return
        node, process, cell = found
        os.kill(process, signal.SIGSTOP)
        if not (output / "cells" / cell / "cell.json").exists():
            lost.append(cell)
        cluster.remove_node(node, allow_graceful=False)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)

    watcher = threading.Thread(target=kill)
    watcher.start()
    places = Places(engine="ray", address=cluster.address)
    assert study(file, dataset_dir, output, places=places, cells="^gdl", device="cpu") == 0
    watcher.join()
    rows = [row for row in figures(whole) if row["cell"].startswith("gdl")]
    assert len(rows) == 2 and len(lost) == 1 and lost[0] in [row["cell"] for row in rows]
    assert figures(output) == rows  # the lost one's too, begun again on the other node


def waited_for(look: Callable[[], Any]) -> Any:
    """What a look finds, once it finds anything; two minutes against a hang."""
    for _ in range(1200):
        found = look()
        if found:
            return found
        time.sleep(0.1)
    return None
