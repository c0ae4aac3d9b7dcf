"""Checkpoints: whole or absent on disk, tensors and plain numbers only, enough to go on exactly."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from pipeline.console import console
from pipeline.errors import RequestError
from pipeline.files import atomic


def save_tensors(content: Any, path: str | Path) -> None:
    """``torch.save`` that is atomic and synced.

    Raises:
        OSError: no space or no permission; an older file of that name stays as it was.
    """
    with atomic(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch reports a full disk as a failed write of its archive
            raise OSError(f"could not write {path}: {error}") from error


def save_weights(network: torch.nn.Module, path: str | Path) -> None:
    """Write the state dict alone, on the CPU and contiguous, so that any MONAI or PyTorch script can load it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_tensors(state, path)


def load_tensors(path: str | Path) -> Any:
    """Read a checkpoint, refusing anything but tensors and plain values (``weights_only``).

    Raises:
        RequestError: missing, torn or not a checkpoint; the message names the file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist; train first, or give the folder of a finished run") from None
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        reason = str(error).splitlines()[0][:200]
        raise RequestError(f"{path} is not a readable checkpoint ({reason}); restore it or train again") from error


def load_weights(network: torch.nn.Module, path: str | Path) -> torch.nn.Module:
    """Load a state dict into the network and set it to evaluation.

    Raises:
        RequestError: the file cannot be read, or its layers are not the network's; the first that differs is named.
    """
    state = load_tensors(path)
    own = network.state_dict()
    for name in [*own, *(name for name in state if name not in own)]:
        if name not in state or name not in own or state[name].shape != own[name].shape:
            here = tuple(own[name].shape) if name in own else "absent"
            there = tuple(state[name].shape) if name in state else "absent"
            raise RequestError(
                f"{path} holds weights of another network: layer {name!r} is {there} in the file and {here} in the "
                "configured network; use the configuration that the weights were trained with"
            )
    network.load_state_dict(state)
    return network.eval()


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as plain values and tensors."""
    version, keys, position = random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]
    name, array, place, has_gauss, gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, keys, position],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(array, dtype=np.int64)),
            int(place),
            int(has_gauss),
            float(gauss),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of :func:`random_states`."""
    version, keys, position = states["python"]
    random.setstate((version, tuple(keys), position))
    name, array, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, array.numpy().astype(np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class RunCheckpoint:
    """Write ``last.pt`` every so many minutes and at the end, and take a run up from it.

    A failed write (disk full, permission) is told on screen, keeps the last good checkpoint and does not end training.

    Args:
        folder: the run's ``models`` folder.
        parts: what is saved, by name; each has ``state_dict`` and ``load_state_dict``.
        loader: the training loader, whose sampler is set to the draws already made when a run is resumed.
        minutes: between checkpoints.
        resume: go on from ``last.pt``.
    """

    def __init__(
        self, folder: str | Path, parts: dict[str, Any], loader: Any, *, minutes: float = 5, resume: bool = False
    ) -> None:
        self.path = Path(folder) / "last.pt"
        self.parts = parts
        self.loader = loader
        self.minutes = minutes
        self.resume = resume
        self._saved = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._now_and_then)
        engine.add_event_handler(Events.COMPLETED, self.save)
        if self.resume:
            self.load(engine)

    def _now_and_then(self, engine: Engine) -> None:
        if time.monotonic() - self._saved >= 60 * self.minutes:
            self.save(engine)

    def save(self, engine: Engine) -> None:
        """Write the checkpoint."""
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content |= {"iteration": engine.state.iteration, "random": random_states()}
        self._saved = time.monotonic()
        try:
            save_tensors(content, self.path)
        except OSError as error:
            console.print(f"[yellow]checkpoint not written: {error}; the previous one is kept and training goes on[/]")

    def load(self, engine: Engine) -> None:
        """Set every part, the random states, the iteration and the sampler to what the checkpoint says."""
        content = load_tensors(self.path)
        missing = {*self.parts, "iteration", "random"} - set(content)
        if missing:
            raise RequestError(f"{self.path} lacks {', '.join(sorted(missing))}; it cannot be resumed, train anew")
        for name, part in self.parts.items():
            part.load_state_dict(content[name])
        restore_random_states(content["random"])
        engine.state.iteration = int(content["iteration"])
        engine.state.epoch = engine.state.iteration // engine.state.epoch_length
        self.loader.sampler.start = engine.state.iteration * self.loader.batch_size
