"""Errors of a training in words: what was too much or wrong, and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import target_name
from rarevox.pipeline.entries import arguments
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.pipeline.training.kept.run_checkpoint import has_checkpoint
from rarevox.pipeline.trust.gate import require_ours

WORDED = (RequestError, FloatingPointError, OSError)
"""Errors that the command line tells in a line as they are."""


def explained(
    error: Exception, folder: Path, config: Mapping[str, Any], *, step: int, began_at: int, validating: bool
) -> Exception:
    """A request that can be mended, where the error is of such a kind; else the error itself.

    Args:
        error: what ended the training.
        folder: the run.
        config: its complete training configuration.
        step: that was being taken, or that had been taken before a validation.
        began_at: the step that this part of the run began after. What fails in its first step, or in a validation,
            fails every time, and is taken for a matter of the configuration.
        validating: whether a validation was under way.
    """
    resume = resume_command(folder, config)
    said = reason_of(error)[:200]
    # The queue of a killed worker may break before PyTorch sees that the worker has gone.
    cut_off = isinstance(error, (ConnectionError, EOFError)) and config.get("workers")
    if isinstance(error, WORDED) and not cut_off:
        return error
    if is_out_of_memory(error):
        return RequestError(f"memory ran out {_too_much(config, step, validating)} ({said}); {_kept(folder, resume)}")
    if cut_off or (isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)):
        return RequestError(
            f"a loader worker ended unexpectedly ({said}); mostly the machine ran out of memory: use fewer workers "
            f"(--set workers=1 or 0), and go on from the last checkpoint with: {resume}"
        )
    if validating or step <= began_at + 1:
        return _misconfigured(f"the validation at step {step}" if validating else "the first step", error)
    return error


def resume_command(folder: Path, config: Mapping[str, Any]) -> str:
    """What is to be typed to go on with a run; a configuration that is more than data is taken with ``--trust``."""
    words = ["rarevox", "train", str(config.get("dataset_dir") or "DATASET"), "--output", str(folder), "--resume"]
    try:
        require_ours(config, folder)
    except RequestError:
        words.append("--trust")
    return shlex.join(words)


@contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Errors that values of a wrong kind lead to (of types, keys, values) as one sentence that begins with ``what``."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if isinstance(error, WORDED):
            raise
        raise _misconfigured(what, error) from error


def _misconfigured(what: str, error: Exception) -> RequestError:
    return RequestError(
        f"{what} failed: {type(error).__name__}: {reason_of(error)[:200]}; correct the entry of the configuration that "
        "this is about (rarevox --debug train … shows where it happened)"
    )


def _too_much(config: Mapping[str, Any], step: int, validating: bool) -> str:
    """What was asked of the memory, and what asks less."""
    if validating:
        return (
            f"in the validation at step {step}: whole scans are too large for what training leaves; let the inferer "
            "take less at once (--set inferer#memory_gb=1)"
        )
    ways = ["--set batch_size=1"] if config["batch_size"] != 1 else []
    ways.append("a smaller patch_size")
    network = config["network_def"]
    if isinstance(network, Mapping) and "checkpointing" in arguments(network) and not network.get("checkpointing"):
        ways.append("--set network_def#checkpointing=true")
    return (
        f"in step {step}: batch {config['batch_size']} of patches {config['patch_size']} is too much for "
        f"{target_name(network)} here; train with {' or '.join(ways)}"
    )


def _kept(folder: Path, resume: str) -> str:
    """What there is to go on from."""
    if not has_checkpoint(folder):
        return "nothing was trained yet"
    return f"the last checkpoint is kept, and where memory has become free the run goes on with: {resume}"
