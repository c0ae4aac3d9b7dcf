"""A real Ray cluster of two nodes, one of which is killed in the middle: the rows are those of one machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
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


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False},
    )
    yield found
    found.shutdown()


@pytest.mark.slow
def test_a_node_that_is_killed_changes_no_row(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, cluster: Any
) -> None:
    """Two nodes of one CPU beside a head without any; the first is killed once a cell has begun on it."""
    file, whole = tiny_study
    output = tmp_path / "out"
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    killed = threading.Event()

    def kill() -> None:
        for _ in range(6000):  # five minutes against a hang
            if any(output.glob("cells/*/logs/train.jsonl")):
                break
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        killed.set()

    watcher = threading.Thread(target=kill)
    watcher.start()
    places = Places(engine="ray", address=cluster.address)
    assert study(file, dataset_dir, output, places=places, device="cpu") == 0
    watcher.join()
    assert killed.is_set()
    assert figures(output) == figures(whole)


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
