"""Writing a checkpoint beside the training: a copy in memory, and a thread that writes it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch


def snapshot(content: object) -> Any:
    """A copy on the CPU that later training steps do not change: tensors, and the mappings and lists around them.

    >>> weights = {"a": [torch.zeros(1)]}
    >>> taken = snapshot(weights)
    >>> _ = weights["a"][0].add_(1)
    >>> taken["a"][0].item()
    0.0
    """
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        copied = copy.copy(content)  # of a network's state this keeps the versions of its layers
        for key, value in content.items():
            copied[key] = snapshot(value)
        return copied
    if isinstance(content, (list, tuple)):
        return type(content)([snapshot(value) for value in content])
    return content


class BackgroundWrite:
    """At most one write at a time, in a thread that outlives an error of the training, so that it is whole or absent.

    PyTorch's writer and the sync leave the interpreter's lock: training goes on meanwhile.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def under_way(self) -> bool:
        """Whether something is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, write: Callable[[Any], None], content: dict[str, Any]) -> None:
        """Begin to write; waits for an earlier write."""
        self.finish()
        self._thread = threading.Thread(target=self._run, args=(write, content), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the write under way."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Wait for the write under way; an error that it met is raised here."""
        self.wait()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, write: Callable[[Any], None], content: dict[str, Any]) -> None:
        try:
            write(content)
        except BaseException as error:
            self._error = error
