"""Forward and backward of the losses against MONAI's, in one run: ratio of times, and memory beside the logits.

    python benchmarks/losses.py                  CPU, both sizes (about 4 minutes and 6 GB)
    python benchmarks/losses.py --quick          one small size, to see that it runs
    python benchmarks/losses.py --device cuda    adds the time that the memory traffic alone would take

Both are given the same float32 logits and int64 labels and run in turns; the ratio is that of the medians. Memory is
the highest above what logits, labels and MONAI itself take, gradient included, in multiples of the logits.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find this file.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import monai.losses  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from rarevox.losses import DiceCELoss, GeneralizedDiceCELoss, GeneralizedDiceLoss  # noqa: E402

SHAPES = [(2, 5, 96, 96, 96), (4, 10, 128, 128, 128)]
Loss = Callable[[Tensor, Tensor], Tensor]


def pairs() -> dict[str, tuple[Loss, Loss]]:
    """Ours and the peer's, by name. GDL + CE has no peer of its own: it is set against Dice + CE."""
    options = {"softmax": True, "to_onehot_y": True}
    peer_dice_ce = monai.losses.DiceCELoss(**options)
    return {
        "GDL": (GeneralizedDiceLoss(), monai.losses.GeneralizedDiceLoss(**options)),
        "Dice + CE": (DiceCELoss(), peer_dice_ce),
        "GDL + CE": (GeneralizedDiceCELoss(), peer_dice_ce),
    }


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Wall time of one call."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def step(loss: Loss, logits: Tensor, labels: Tensor) -> None:
    """One forward and backward."""
    logits.grad = None
    loss(logits, labels).backward()


def extra_memory(loss: Loss, logits: Tensor, labels: Tensor) -> float | None:
    """The peak of one step above the level before it, in multiples of the logits; None where it cannot be read."""
    # A small step first loads the code; what the loss keeps for volumes of this size still counts.
    small = torch.randn(1, logits.shape[1], 8, 8, 8, device=logits.device, requires_grad=True)
    step(loss, small, labels[:1, :, :8, :8, :8])
    logits.grad = None
    gc.collect()
    size = logits.numel() * logits.element_size()
    if logits.is_cuda:
        torch.cuda.reset_peak_memory_stats(logits.device)
        before = torch.cuda.memory_allocated(logits.device)
        step(loss, logits, labels)
        wait(logits.device)
        return (torch.cuda.max_memory_allocated(logits.device) - before) / size
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        reset.write_text("5")  # sets the peak of the resident memory back to its present level
    except OSError:
        return None
    before = _resident_bytes(status, "VmRSS")
    step(loss, logits, labels)
    return (_resident_bytes(status, "VmHWM") - before) / size


def _resident_bytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def traffic_seconds(logits: Tensor, repeats: int) -> float:
    """What reading the logits twice and writing the gradient once takes at the bandwidth of a copy (one of each)."""
    target = torch.empty_like(logits)
    with torch.no_grad():
        times = [seconds(lambda: target.copy_(logits), logits.device) for _ in range(repeats)]
    return 1.5 * statistics.median(times)


def measure(shape: tuple[int, ...], device: torch.device, repeats: int) -> None:
    """Print one row a loss for logits of one shape."""
    torch.manual_seed(0)
    logits = torch.randn(shape, device=device, requires_grad=True)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), device=device)
    bound = traffic_seconds(logits, repeats)
    print(f"\nlogits {'×'.join(map(str, shape))}, {logits.numel() * 4 / 2**20:.0f} MiB")
    print(f"memory traffic alone (2 reads, 1 write): {bound * 1e3:.1f} ms")
    print(f"{'loss':10} {'rarevox':>10} {'MONAI':>10} {'ratio':>7} {'× traffic':>10} {'memory':>8} {'MONAI':>8}")
    for name, (mine, peer) in pairs().items():
        memory = [extra_memory(loss, logits, labels) for loss in (mine, peer)]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            for loss, taken in zip((mine, peer), times, strict=True):
                taken.append(seconds(lambda loss=loss: step(loss, logits, labels), device))  # type: ignore[misc]
        ours, theirs = (statistics.median(taken) for taken in times)
        shown = ["     n/a" if value is None else f"{value:7.2f}×" for value in memory]
        print(
            f"{name:10} {ours * 1e3:7.1f} ms {theirs * 1e3:7.1f} ms {theirs / ours:6.2f}× {ours / bound:9.2f}× "
            + " ".join(shown)
        )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:i")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--repeats", type=int, default=11, help="steps of each loss (11)")
    parser.add_argument("--quick", action="store_true", help="one small size, three repeats")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"torch {torch.__version__}, MONAI {monai.__version__}, {name}")
    for shape in [(2, 5, 48, 48, 48)] if arguments.quick else SHAPES:
        measure(shape, device, 3 if arguments.quick else arguments.repeats)


if __name__ == "__main__":
    main()
