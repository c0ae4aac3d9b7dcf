"""Running a training that is configured: build it, run it, say how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from rarevox.losses.sums.triton import overlap as triton
from rarevox.pipeline.build import parsed, with_literal_paths
from rarevox.pipeline.bundle import LEFT_OUT, target_name
from rarevox.pipeline.console import console
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.failures import explained, resume_command
from rarevox.pipeline.training.kept.norm_statistics import write_statistics
from rarevox.pipeline.training.kept.run_checkpoint import has_checkpoint
from rarevox.pipeline.training.record.left_out import left_out, note_left_out
from rarevox.pipeline.words import counted, listed


class Ending(int):
    """The exit status of a training, and what it is for.

    Attributes:
        left: names of the cases that could not be read and were left out.
        untrained: whether the time was over before the first step.

    >>> Ending(1, left=["a"]) == 1, Ending(1, left=["a"]).left
    (True, ('a',))
    """

    left: tuple[str, ...]
    untrained: bool

    def __new__(cls, status: int, *, left: Iterable[str] = (), untrained: bool = False) -> Ending:
        """A status with its reasons."""
        made = super().__new__(cls, status)
        made.left, made.untrained = tuple(left), untrained
        return made


def run_training(folder: Path, config: Mapping[str, Any], began: float) -> Ending:
    """Run the written bundle's training in this process.

    Args:
        folder: the run.
        config: its complete training configuration.
        began: when the command began, of ``time.monotonic``; minutes count from there.

    Returns:
        Exit status, as :func:`rarevox.pipeline.training.train.train` says.

    Raises:
        RequestError: something cannot be built or read, memory ran out, a loader worker was killed, or already the
            first step failed.
        FloatingPointError: the loss stayed not finite.
    """
    from monai.bundle import ConfigParser
    from monai.utils import set_determinism

    # Validations are compared with one another, and points that were chosen for weights before came between them.
    whole = {**config, "operating_points": {}, "bundle_root": str(folder.resolve())}
    parser = ConfigParser(with_literal_paths(whole))
    parser.parse()
    seed = int(parsed(parser, "seed"))
    set_determinism(seed)
    if not parsed(parser, "deterministic"):  # patches have one shape, so that one trial of each convolution is enough
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    budget = parsed(parser, "budget")
    budget.start_at(began)
    parsed(parser, "network_def")  # which precision asks for: what is wrong with it is said of it
    precision = parsed(parser, "precision")
    console.print(
        f"{target_name(config['network_def'])} with {target_name(config['loss'])}, patches {config['patch_size']}, "
        f"batch {config['batch_size']}, {precision.device} {str(precision.dtype).removeprefix('torch.')}; reading cases"
    )
    if precision.device.type == "cuda" and (reason := triton.why_none()):
        console.print(f"{reason}: losses run in PyTorch's operations, with more memory and time; `rarevox doctor`")
    trainer = parsed(parser, "train#trainer")
    processes.vary_seed(seed)
    validation, checkpoint = (parsed(parser, key) for key in ("validation", "checkpoint"))
    left = left_out(parser)
    if processes.is_first():
        note_left_out(folder, left)
    status, first = 0, trainer.state.iteration
    try:
        trainer.run()
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        step = {"step": trainer.state.iteration, "began_at": first, "validating": validation.under_way}
        found = explained(error, folder, config, **step)
        if found is error:
            raise
        raise found from error
    if validation.interrupted and "interruption" in config:
        status = parser.get_parsed_content("interruption").status
    resume = resume_command(folder, config)
    unwritten = _unwritten(folder, checkpoint, validation, resume) if processes.is_first() else ""
    if status:
        console.print(f"interrupted; {unwritten or f'go on with: {resume}'}")
        return Ending(status)
    if not trainer.state.iteration:
        console.say(
            "[yellow]the time was over before the first step, since reading the cases counts: the model is untrained; "
            "go on with: {} --minutes M[/]",
            resume,
        )
        return Ending(1, untrained=True)
    if first and trainer.state.iteration == first:
        steps = counted(first, "step")
        why = (
            "patience ended the run, whatever its budget; train anew with a larger patience, or none, to go further"
            if validation.out_of_patience
            else f"the budget was used up by the {steps} before; give a larger one"
        )
        console.print(f"nothing was to be done: {why}")
    if unwritten:
        console.say("[red]the run is not whole[/]: {}", unwritten)
        return Ending(1)
    if processes.is_first():
        write_statistics(folder, config, parser)
    best = f"best mean Dice on validation {validation.best:.4f}" if validation.best >= 0 else "not validated"
    console.print(f"{best}; the run is in {folder}")
    if left:
        console.say(
            "[red]could not be read and were left out[/red] ({}): {}; mend them or prepare anew, and train again ({})",
            len(left),
            listed([row["case"] for row in left]),
            folder / LEFT_OUT,
        )
    console.print(f"next: rarevox evaluate {folder} {config['dataset_dir']}")
    return Ending(bool(left), left=[row["case"] for row in left])


def _unwritten(folder: Path, checkpoint: Any, validation: Any, resume: str) -> str:
    """What of a run's end could not be written, and what to do; empty where all is there."""
    model = folder / "models" / "model.pt"
    lost = ["the best model (models/model.pt)"] if validation.failed or not model.exists() else []
    lost += ["the last checkpoint (models/last.pt)"] if checkpoint.failed else []
    if not lost:
        return ""
    if not has_checkpoint(folder):
        return f"{' and '.join(lost)} could not be written; free space and train anew into another folder"
    return f"{' and '.join(lost)} could not be written; free space and go on from the checkpoint before with: {resume}"
