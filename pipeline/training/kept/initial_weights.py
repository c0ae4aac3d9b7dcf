"""Fine-tuning: the weights of another run where they fit, the rest told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import write_json
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.kept.checkpoint import load_tensors

SHOWN = 12
"""Layers listed on screen; the log has all."""


def weights_of(run: str | Path) -> Path:
    """The weights of a run's best model, or a file of weights itself.

    Raises:
        RequestError: neither, or a run that is refused by :func:`rarevox.pipeline.bundle.require_run`.
    """
    path = Path(run)
    if (path / "configs" / "train.yaml").is_file():
        require_run(path, "train")
    path = path / "models" / "model.pt" if path.is_dir() else path
    if not path.is_file():
        raise RequestError(
            f"--from {run} has no models/model.pt; give the folder of a trained run or a file of weights"
        )
    return path.resolve()


def run_of(weights: str | Path | None) -> Path | None:
    """A run itself, or that whose ``models`` folder a file of weights lies in; None of other files: nothing is known.

    >>> run_of("runs/first/models/model.pt").name
    'first'
    >>> run_of("elsewhere/model.pt") is run_of(None) is None
    True
    """
    if weights is not None and Path(weights).is_dir():
        return Path(weights)
    folder = None if weights is None else Path(weights).absolute().parent
    return folder.parent if folder is not None and folder.name == "models" else None


def match(network: torch.nn.Module, path: str | Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The tensors of a file that fit the network by name and shape, and a row for each that does not.

    Args:
        network: to be given the weights.
        path: a state dict.

    Returns:
        The matching tensors, and rows with ``layer``, ``here`` and ``there`` (shapes, None where it is absent).

    Raises:
        RequestError: not a file of weights, or none of its tensors fits.
    """
    found, own = load_tensors(path), network.state_dict()
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise RequestError(f"{path} is not a file of weights alone; give a run's models/model.pt")
    taken = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    if not any(tensor.is_floating_point() for tensor in taken.values()):
        raise RequestError(
            f"no layer of {path} has the name and shape of one of the network's; fine-tune the same network that the "
            "other run trained, and name it (--network; without, the plan's is taken)"
        )
    rest = [name for name in [*own, *(name for name in found if name not in own)] if name not in taken]
    shapes = [
        {"layer": name, **{k: list(s[name].shape) if name in s else None for k, s in (("here", own), ("there", found))}}
        for name in rest
    ]
    return taken, shapes


class InitialWeights:
    """Start a run from another's weights: layers matched by name and shape, the rest as they were initialised.

    What was taken and what was not is told on screen and in ``logs/initial_weights.json``. A run that goes on from its
    own checkpoint leaves them alone.

    Args:
        network: the network that is trained.
        weights: a file of weights; None starts anew.
        folder: the run's ``logs`` folder.
    """

    def __init__(self, network: torch.nn.Module, *, weights: str | Path | None = None, folder: str | Path) -> None:
        self.network = network
        self.weights = weights
        self.path = Path(folder) / "initial_weights.json"

    def attach(self, engine: Engine) -> None:
        """Load before the first step."""
        if self.weights is not None:
            engine.add_event_handler(Events.STARTED, self._when_new)

    def _when_new(self, engine: Engine) -> None:
        if engine.state.iteration == 0:
            self.load()

    def load(self) -> None:
        """Take over what fits, and tell."""
        assert self.weights is not None
        taken, rest = match(self.network, self.weights)
        self.network.load_state_dict(taken, strict=False)
        console.print(f"{len(taken)} tensors from {self.weights}; {len(rest)} do not fit")
        for row in rest[:SHOWN]:
            console.print(f"  {row['layer']}: {_shape(row['here'])} here, {_shape(row['there'])} there")
        if len(rest) > SHOWN:
            console.print(f"  and {len(rest) - SHOWN} more, listed in {self.path}")
        if processes.is_first():
            write_json(self.path, {"weights": str(self.weights), "taken": list(taken), "not_taken": rest})


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
