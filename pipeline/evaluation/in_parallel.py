"""Work on many cases at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from rarevox.pipeline.console import progress_bar


def in_parallel(work: Callable[[Any], Any], items: list[Any], workers: int, what: str) -> list[Any]:
    """``work`` on every item, in order; threads suffice, as decompression and array passes release the lock."""
    with progress_bar() as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        task = bar.add_task(what, total=len(items))
        futures = [pool.submit(work, item) for item in items]
        for _ in as_completed(futures):
            bar.advance(task)
        return [future.result() for future in futures]
