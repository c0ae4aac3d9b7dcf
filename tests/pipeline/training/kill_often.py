"""Train a run to its end, killed again and again at random moments: the tool of ``test_survival.py``.

The libraries are imported once; every part of the run is a forked process, so that a part costs a second rather than
ten. Arguments as JSON: dataset, run, settings, iterations, kills, seed, most_seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.utils.tensorboard

from rarevox.pipeline.training.train import train

KILLS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def fork(work: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        status = 99
        try:
            torch.set_num_threads(1)  # makes the pool of threads anew, before two threads would do so at once
            status = work()
        except KeyboardInterrupt:  # before the trainer takes the signals; the command line answers so too
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def main() -> None:
    """Train, kill, resume; prints what every part did as JSON."""
    options = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    rng = random.Random(options["seed"])
    dataset, run = options["dataset"], Path(options["run"])
    parts = []
    while True:

        def work() -> int:
            if (run / "configs" / "train.yaml").exists():
                return train(dataset, run, device="cpu", resume=True)
            return train(dataset, run, settings=options["settings"], iterations=options["iterations"], device="cpu")

        child = fork(work)
        number = 0
        if len(parts) < options["kills"]:
            time.sleep(rng.uniform(0, options["most_seconds"]))
            number = rng.choice(KILLS)
            os.kill(child, number)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        parts.append({"signal": int(number), "status": status})
        if len(parts) > options["kills"] or status == 99:
            break
    print(json.dumps(parts))


if __name__ == "__main__":
    main()
