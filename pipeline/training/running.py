"""Running a training that is configured: build it, run it, say how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.bundle import target_name
from pipeline.console import console
from pipeline.errors import RequestError, reason_of
from pipeline.training import processes


def run_training(folder: Path, config: Mapping[str, Any], began: float) -> int:
    """Run the written bundle's training in this process.

    Args:
        folder: the run.
        config: its complete training configuration.
        began: when the command began, of ``time.monotonic``; minutes count from there.

    Returns:
        Exit status, as :func:`pipeline.training.train.train` says.

    Raises:
        RequestError: something cannot be built or read, or a loader worker was killed.
        FloatingPointError: the loss stayed not finite.
    """
    from monai.bundle import ConfigParser
    from monai.utils import set_determinism

    set_determinism(int(config["seed"]))
    parser = ConfigParser(dict(config) | {"bundle_root": str(folder)})
    parser.parse()
    budget = parsed(parser, "budget")
    budget.start_at(began)
    precision = parsed(parser, "precision")
    console.print(
        f"{target_name(config['network_def'])} with {target_name(config['loss'])}, patches {config['patch_size']}, "
        f"batch {config['batch_size']}, {precision.device} {str(precision.dtype).removeprefix('torch.')}; reading cases"
    )
    trainer = parsed(parser, "train#trainer")
    processes.vary_seed(int(config["seed"]))
    validation, checkpoint = (parsed(parser, key) for key in ("validation", "checkpoint"))
    status = 0
    try:
        trainer.run()
    except KeyboardInterrupt:
        status = 130
    except RuntimeError as error:
        raise _explained(error, folder) from error
    if validation.interrupted and "interruption" in config:
        status = parser.get_parsed_content("interruption").status
    if status:
        console.print(f"interrupted; go on with: rarevox train DATASET --output {folder} --resume")
        return status
    if not trainer.state.iteration:
        console.print(
            "[yellow]the time was over before the first step, since reading the cases counts: the model is untrained; "
            f"go on with: rarevox train DATASET --output {folder} --resume --minutes M[/]"
        )
        return 1
    console.print(f"best mean Dice on validation {validation.best:.4f}; the run is in {folder}")
    return 1 if checkpoint.failed or validation.failed else 0


def parsed(parser: Any, key: str) -> Any:
    """An entry of a configuration, built with what it refers to.

    Args:
        parser: MONAI's, with the configuration.
        key: of the entry.

    Raises:
        RequestError: it cannot be built; the message says which entry and why.
    """
    try:
        return parser.get_parsed_content(key)
    except Exception as error:
        while not isinstance(error, RequestError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, RequestError):
            raise error from None
        raise RequestError(f"configuration entry {key!r} cannot be built: {reason_of(error)}") from error


def _explained(error: RuntimeError, folder: Path) -> Exception:
    """A killed loader worker as a request that can be mended; other errors as they are."""
    if "DataLoader worker" not in str(error):
        return error
    return RequestError(
        f"a loader worker ended unexpectedly ({' '.join(str(error).split())[:200]}); mostly the machine ran out of "
        "memory: use fewer workers (--set workers=1 or 0), and go on from the last checkpoint with: "
        f"rarevox train DATASET --output {folder} --resume"
    )
