"""What a device would be asked to do: launches, waits of the host, copies, each with the place that asked."""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.pretended_cuda.inside.device import is_pinned, pinned

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "tests"

# Tensors that one launch of an operation on lists takes, by the number of lists, and elements of a block, blocks of a
# launch: ATen/native/cuda/MultiTensorApply.cuh.
LISTED = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
CHUNK, BLOCKS = 65536, 320

# Operations without a kernel of their own.
FREE = ("empty", "new_empty", "detach", "lift", "is_pinned", "record_stream", "device", "_local_scalar_dense", "set_")


class Ledger(TorchDispatchMode):
    """Counts what is done on CUDA, and answers what only data could answer.

    Attributes:
        launches: kernels at least, by operation; a convolution or a reduction may take more than one.
        waits: of the host for the device, by (place, what).
        late: launches that were queued behind what the host waited for, by place: the device had work meanwhile.
        returned: copies to pinned memory of the host beside which it goes on, by place.
        pageable: copies to the device from memory that is not pinned, for which the host waits too, by place.
        pinned: copies to the device beside which the host goes on, by place.
        launched_in_all: kernels that `clear` does not forget.
        lines: the lines of each place.
        sites: launches by place.
        moved: bytes that the operations read and write, at least once each.
        flops: of convolutions and matrix products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched_in_all = 0
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.launches: Counter[str] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.late: dict[str, int] = {}
        self.returned: Counter[str] = Counter()
        self.pageable: Counter[str] = Counter()
        self.pinned: Counter[str] = Counter()
        self.sites: Counter[str] = Counter()
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.moved = 0
        self.flops = 0

    @property
    def total(self) -> int:
        """All launches."""
        return self.launches.total()

    def report(self) -> str:
        """What was asked, with the lines, for a message."""
        where = {place: sorted(lines) for place, lines in self.lines.items()}
        return "\n".join(
            [
                f"waits: {dict(self.waits)}, late: {self.late}",
                f"pageable copies: {dict(self.pageable)}",
                f"lines: {where}",
            ]
            + [f"{count} launches at {place}" for place, count in self.sites.most_common(12)]
        )

    def launched(self, name: str, *tensors: torch.Tensor) -> None:
        """Take down a kernel that is not PyTorch's."""
        self._launch(name, 1, tensors)

    def waited(self, behind: int) -> None:
        """Take down that the host waits for what was recorded in an event so many launches ago."""
        place = self._place()
        if behind:
            self.late[place] = min(behind, self.late.get(place, behind))
        else:
            self.waits[(place, "event")] += 1

    def wait(self, what: str) -> None:
        """Take down that the host waits."""
        self.waits[(self._place(), what)] += 1

    def _place(self) -> str:
        """The innermost function of this project that is at work, or of PyTorch's optimisers."""
        frame, other = sys._getframe(2), None
        while frame is not None:
            file, kind = _file(frame.f_code.co_filename)
            if kind == "ours":
                place = f"{file}:{frame.f_code.co_name}"
                self.lines[place].add(frame.f_lineno)
                return place
            if other is None and kind == "optimiser":
                other = f"{file}:{frame.f_code.co_name}"
            frame = frame.f_back  # type: ignore[assignment]
        return other or "backward pass"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_cuda = any(tensor.is_cuda for tensor in tensors) or str(kwargs.get("device", "")).startswith("cuda")
        if not on_cuda and name != "_local_scalar_dense":
            return func(*args, **kwargs)
        for tensor in tensors if on_cuda else ():
            if isinstance(tensor, FakeTensor):
                tensor.constant = None  # with what it remembers of its making, it would be computed
        answer = self._answered(name, func, args, kwargs)
        if answer is not NotImplemented:
            return answer
        try:
            result = func(*args, **kwargs)
        except ValueError as error:
            if name != "view":
                raise
            raise RuntimeError(str(error)) from error  # as of tensors that hold data
        if name in ("_to_copy", "copy_"):
            self._copied(name, args, kwargs, result)
        returned = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if name.startswith("_foreach"):
            self._launch(name, _listed_launches(args, result), tensors + returned)
        elif not _is_view(func) and not name.startswith(FREE):
            self._launch(name, 1, tensors + returned)
            self.flops += _flops(name, args, result)
        return result

    def _launch(self, name: str, count: int, tensors: Any) -> None:
        self.launches[name] += count
        self.launched_in_all += count
        self.sites[self._place()] += count
        seen = {id(tensor): tensor for tensor in tensors if tensor.is_cuda}
        self.moved += sum(tensor.numel() * tensor.element_size() for tensor in seen.values())

    def _answered(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """An answer in place of an operation whose result, or its size, depends on data."""
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is None:
            return NotImplemented
        if name == "_local_scalar_dense":
            if first.device.type == "cpu" and getattr(first, "constant", None) is not None:
                return NotImplemented
            if not first.is_cuda and not isinstance(first, FakeTensor):
                return NotImplemented
            if first.is_cuda:
                self.wait("item")
            return _plausible(first.dtype)
        if name == "equal":
            self.wait("equal")
            return True
        if name == "nonzero":
            self.wait("nonzero")
            return torch.zeros(1, first.ndim, dtype=torch.int64, device=first.device)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            return self._indexed(func, args, kwargs)
        if name == "bincount":
            self.wait("bincount")
            weights = args[1] if len(args) > 1 else kwargs.get("weights")
            dtype = torch.int64 if weights is None else torch.promote_types(weights.dtype, torch.float32)
            least = args[2] if len(args) > 2 else kwargs.get("minlength", 1)
            return torch.empty(least, dtype=dtype, device=first.device)
        if name in ("unique", "_unique2", "masked_select", "repeat_interleave"):
            raise AssertionError(f"{name} waits for the device at {self._place()}, and has no answer here")
        return NotImplemented

    def _indexed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Indexing with a mask, which waits for the number of places."""
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        if not masks:
            return NotImplemented
        self.wait("mask")
        places: list[Any] = []
        for index in args[1]:
            if index is None or index.dtype not in (torch.bool, torch.uint8):
                places.append(index)
            else:  # all places are chosen
                places.extend(
                    torch.zeros(index.numel(), dtype=torch.int64, device=index.device) for _ in range(index.ndim)
                )
        return func(args[0], places, *args[2:], **kwargs)

    def _copied(self, name: str, args: Any, kwargs: Any, result: torch.Tensor) -> None:
        source, target = (args[1], args[0]) if name == "copy_" else (args[0], result)
        if source.device == target.device:
            return
        beside = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
        if source.is_cuda and not target.is_cuda:
            if beside and is_pinned(target):
                self.returned[self._place()] += 1
            else:
                self.wait("copy to the host")
            return
        kind = self.pinned if beside and is_pinned(source) else self.pageable
        kind[self._place()] += 1


@functools.cache
def _file(name: str) -> tuple[str, str]:
    """A file from the root of the project or of PyTorch, and whether it is ours, an optimiser's or another."""
    path = Path(name).resolve()
    if path.is_relative_to(ROOT) and not path.is_relative_to(TESTS) and ".venv" not in path.parts:
        return str(path.relative_to(ROOT)), "ours"
    if path.parent.name in ("optim", "amp") or path.name == "clip_grad.py":
        return f"torch/{path.parent.name}/{path.name}", "optimiser"
    return name, "other"


def _plausible(dtype: torch.dtype) -> Any:
    return True if dtype == torch.bool else 0.0 if dtype.is_floating_point else 1


def _is_view(func: Any) -> bool:
    """Whether an operation returns its input, seen in another way, and writes nothing."""
    returns = func._schema.returns
    return any(value.alias_info is not None and not value.alias_info.is_write for value in returns)


def _listed_launches(args: Any, result: Any) -> int:
    """Launches of an operation on lists of tensors."""
    lists = [one for one in args if isinstance(one, (list, tuple)) and one and isinstance(one[0], torch.Tensor)]
    if not lists:
        return 1
    depth = min(len(lists) + (result is not None), 5)
    blocks = sum(math.ceil(tensor.numel() / CHUNK) for tensor in lists[0])
    return max(math.ceil(len(lists[0]) / LISTED[depth]), math.ceil(blocks / BLOCKS))


def _flops(name: str, args: Any, result: Any) -> int:
    """Two for each multiplication of a convolution, its gradients, or a product of matrices."""
    if name == "convolution":
        return 2 * result.numel() * args[1][0].numel()
    if name == "convolution_backward":
        wanted = sum(map(bool, args[10][:2]))
        return 2 * wanted * args[0].numel() * args[2][0].numel()
    if name in ("bmm", "mm"):
        return 2 * result.numel() * args[0].shape[-1]
    if name in ("baddbmm", "addmm"):
        return 2 * result.numel() * args[1].shape[-1]
    return 0


def _tolist(self: torch.Tensor) -> Any:
    """`Tensor.tolist` of tensors without data: one wait on a device."""
    if self.is_cuda:
        for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack():
            if isinstance(mode, Ledger):
                mode.wait("tolist")

    def nested(shape: Any) -> Any:
        return [nested(shape[1:]) for _ in range(shape[0])] if shape else _plausible(self.dtype)

    return nested(self.shape)


FakeTensor.tolist = _tolist  # type: ignore[method-assign]

__all__ = ["Ledger", "pinned"]
