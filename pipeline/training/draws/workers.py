"""The worker processes of the training loader, when a run is interrupted and when it ends."""

from __future__ import annotations

import signal

from torch.utils.data import DataLoader


def leave_signals_to_the_trainer(_: int = 0) -> None:
    """For a loader's worker process: Ctrl-C and a first SIGTERM are the trainer's business, a second SIGTERM ends it.

    A terminal or a batch system sends its signal to all processes of a run; a worker that died of it would leave the
    trainer without the patches of its last step. A worker that the trainer has left alone ends two minutes after the
    first SIGTERM.
    """

    def wait(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        signal.alarm(120)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, wait)


def end_workers(loader: DataLoader) -> None:
    """End a loader's persistent workers in order, which PyTorch else leaves to the end of the process: it signals them
    only once there, and would wait for ones that leave a first signal to the trainer."""
    loader = getattr(loader, "loader", loader)
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
        loader._iterator = None
