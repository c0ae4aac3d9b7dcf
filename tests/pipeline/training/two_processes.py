"""A training as ``torchrun`` starts it: the tool of ``test_processes.py``. A rank may be told to signal itself.

Arguments: the step at which rank 1 sends itself SIGTERM (0: never), then those of ``rarevox``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from rarevox.pipeline.cli import main
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.kept.run_checkpoint import RunCheckpoint

if __name__ == "__main__":
    step = int(sys.argv[1])
    due = RunCheckpoint._now_and_then

    def act(self: RunCheckpoint, engine: Any) -> None:
        due(self, engine)
        if step and engine.state.iteration == step and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    RunCheckpoint._now_and_then = act  # type: ignore[method-assign]
    main(sys.argv[2:])
