"""Muon: steps along orthogonalised gradients, in which short trainings learn most from each patch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rarevox.pipeline.training.steps.recording import Repeated

# Coefficients of the quintic iteration, chosen for its slope at 0: five rounds bring the singular values to 0.7 … 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
ROUNDS = 5
# The update's root mean square is about that of Adam's steps, so that learning rates and weight decay mean the same.
RMS = 0.2


def orthogonalise(matrices: Tensor, rounds: int = ROUNDS) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ of each matrix, roughly: its singular values lie in 0.7 … 1.2.

    X ← a X + (b X Xᵀ + c (X Xᵀ)²) X, from X = M / ‖M‖ on (Frobenius norm); singular values near 0 stay small, a matrix
    of zeros stays one.

    Args:
        matrices: (N, rows, columns), float32 or float64.
        rounds: of the iteration.

    >>> torch.linalg.svdvals(orthogonalise(torch.randn(1, 4, 9))).amax() < 1.3
    tensor(True)
    """
    x = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised for kernels, Adam with decoupled weight decay for everything else.

    Of a kernel (C', C, k, k, k), read as a matrix of C' rows and C·k³ columns, with gradient G:

    M ← μ M + (1 − μ) G,  W ← (1 − η λ) W − 0.2 η √max(C', C·k³) · orth(μ M + (1 − μ) G).

    Every direction of the gradient is followed at the same length, not only the few that dominate it. Norms' weights,
    biases and other parameters of fewer than two axes take Adam's steps, with β and ε as given. On hippocampus, 250
    steps of one patch with HighResNet gave a validation Dice of 0.883, with AdamW at its best rate 0.865.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate η, of both kinds of step.
        momentum: μ.
        weight_decay: λ.
        betas: of Adam's steps.
        eps: of Adam's steps.

    Raises:
        ValueError: a value outside its range.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the length of the steps is
    that of Liu et al., "Muon is scalable for LLM training", 2025. ``torch.optim.Muon`` takes matrices alone, in
    bfloat16.

    >>> layer = torch.nn.Conv3d(2, 3, 3)
    >>> optimizer = Muon(layer.parameters(), lr=0.01)
    >>> layer(torch.ones(1, 2, 3, 3, 3)).sum().backward()
    >>> optimizer.step()
    """

    graphs = False
    """On CUDA: the directions come by a graph (`rarevox.pipeline.training.steps.recording.Repeated`). A training step
    (`rarevox.pipeline.training.TrainingStep`) sets this in each step, as its ``cuda_graphs`` says."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        for name, value, valid in (
            ("lr", lr, lr >= 0),
            ("momentum", momentum, 0 <= momentum < 1),
            ("weight_decay", weight_decay, weight_decay >= 0),
            ("betas", betas, len(betas) == 2 and all(0 <= beta < 1 for beta in betas)),
            ("eps", eps, eps >= 0),
        ):
            if not valid:
                raise ValueError(f"{name} of Muon is {value!r}; momentum and betas lie in [0, 1), the others from 0 on")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": tuple(betas), "eps": eps}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; ``closure``, if given, makes the gradients and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            alike: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[(parameter.ndim < 2, parameter.device, parameter.dtype)].append(parameter)
            for (vectors, device, dtype), parameters in alike.items():
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                if vectors:
                    self._adam(parameters, group)
                else:
                    self._along_orthogonal(parameters, group, (number, device, dtype))
        return loss

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Adam's step; the weight decay is done."""
        alike: dict[int, list[Tensor]] = defaultdict(list)  # all at once, unless some had no gradient before
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
            counter = state["step"]
            on_gpu = isinstance(counter, Tensor) and is_on_gpu(counter)
            alike[id(counter) if on_gpu else -1 - int(counter)].append(parameter)
        beta1, beta2 = group["betas"]
        for some in alike.values():
            step = self._counted(some)
            gradients = [parameter.grad for parameter in some if parameter.grad is not None]
            means, squares = ([self.state[parameter][key] for parameter in some] for key in ("exp_avg", "exp_avg_sq"))
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
            deviations = torch._foreach_div(squares, 1 - beta2**step)
            torch._foreach_sqrt_(deviations)
            torch._foreach_add_(deviations, group["eps"])
            rate = -group["lr"] / (1 - beta1**step)
            if isinstance(rate, Tensor):
                torch._foreach_addcdiv_(some, torch._foreach_mul(means, rate), deviations)
            else:
                torch._foreach_addcdiv_(some, means, deviations, value=rate)

    def _counted(self, parameters: list[Tensor]) -> Any:
        """One step more of parameters that have taken as many: a number on the CPU. On a GPU one tensor of all, so that
        a step that the device does not take is not counted (`rarevox.pipeline.training.steps.late`)."""
        state = self.state[parameters[0]]
        if not is_on_gpu(parameters[0]):
            step: Any = int(state["step"]) + 1
        elif isinstance(state["step"], Tensor) and is_on_gpu(state["step"]):
            return state["step"].add_(1)
        else:  # the first step, or one after a checkpoint was loaded
            step = torch.full((), int(state["step"]) + 1.0, device=parameters[0].device)
        for parameter in parameters:
            self.state[parameter]["step"] = step
        return step

    def _along_orthogonal(self, kernels: list[Tensor], group: dict[str, Any], which: tuple[Any, ...]) -> None:
        """The step of kernels, matrices of one size going through the iteration together.

        Args:
            kernels: of one device and type.
            group: of parameters, which they are of.
            which: a name of these kernels.
        """
        for kernel in kernels:
            if not self.state[kernel]:
                self.state[kernel]["momentum_buffer"] = torch.zeros_like(kernel)
        gradients = [kernel.grad for kernel in kernels if kernel.grad is not None]
        momenta = [self.state[kernel]["momentum_buffer"] for kernel in kernels]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
        rates = [-group["lr"] * RMS * max(len(one), one.numel() // len(one)) ** 0.5 for one in updates]
        if is_on_gpu(kernels[0]):
            steps = self._repeated(which)(updates) if self.graphs else directions(updates)
            torch._foreach_mul_(steps, rates)
            torch._foreach_add_(kernels, steps)
        else:
            for kernel, step, rate in zip(kernels, directions(updates), rates, strict=True):
                kernel.add_(step, alpha=rate)

    def _repeated(self, which: tuple[Any, ...]) -> Repeated:
        """The graph of some kernels; no part of the optimiser's state, and not copied with it."""
        graphs: dict[tuple[Any, ...], Repeated] = self.__dict__.setdefault("_graphs", {})
        return graphs.setdefault(which, Repeated(directions_like, "the optimiser"))


def directions(updates: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonalised`, of kernels (C', C, *k) in place of matrices, in shapes and types of their own.

    >>> [one.shape for one in directions([torch.ones(2, 3, 1, 1, 1)])]
    [torch.Size([2, 3, 1, 1, 1])]
    """
    found = orthogonalised([update.flatten(1) for update in updates])
    return [one.view(update.shape).to(update.dtype) for one, update in zip(found, updates, strict=True)]


def directions_like(updates: Sequence[Tensor]) -> list[Tensor]:
    """`directions` in the layouts of the kernels, as operations on lists of tensors want it: free in a graph."""
    return [torch.empty_like(update).copy_(one) for one, update in zip(directions(updates), updates, strict=True)]


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonalise` for matrices of any sizes, those of one size together; on a GPU those of few sizes.

    There each batch costs twenty launches, however small, so that narrow matrices go with wider ones: zeros beside a
    matrix stay zeros, and change neither its norm nor its products.

    >>> [one.shape for one in orthogonalised([torch.ones(2, 5), torch.ones(4, 3)])]
    [torch.Size([2, 5]), torch.Size([4, 3])]
    """
    batches: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, matrix in enumerate(matrices):
        batches[(matrix.shape[0], matrix.shape[1])].append(number)
    result: dict[int, Tensor] = {}
    for (rows, columns), numbers in (pooled(batches) if is_on_gpu(matrices[0]) else batches).items():
        some = [_in_corner(matrices[number], rows, columns) for number in numbers]
        stacked = torch.stack(some)
        stacked = stacked if stacked.dtype == torch.float64 else stacked.float()
        for number, direction in zip(numbers, orthogonalise(stacked), strict=True):
            result[number] = _out_of_corner(direction, matrices[number].shape)
    return [result[number] for number in range(len(matrices))]


def is_on_gpu(tensor: Tensor) -> bool:
    """Whether launches cost more than a quarter more of arithmetic."""
    return tensor.is_cuda


def pooled(batches: Mapping[tuple[int, int], list[int]]) -> dict[tuple[int, int], list[int]]:
    """Batches of matrices, small ones put into larger ones that they enlarge by a quarter at most.

    The sizes have the short side first; a matrix that stands upright lies down.

    >>> pooled({(16, 27): [0], (16, 432): [1, 2, 3, 4], (432, 16): [5]})
    {(16, 432): [1, 2, 3, 4, 5, 0]}
    """
    lying: dict[tuple[int, int], list[int]] = defaultdict(list)
    for size, numbers in batches.items():
        lying[(min(size), max(size))].extend(numbers)
    for small in sorted(lying, key=lambda size: size[0] * size[1]):
        for large in sorted(lying, key=lambda size: size[0] * size[1]):
            holds = large != small and small[0] <= large[0] and small[1] <= large[1]
            if holds and 4 * len(lying[small]) <= len(lying[large]):
                lying[large].extend(lying.pop(small))
                break
    return dict(lying)


def _in_corner(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix, lying if the size does, with zeros after its rows and columns."""
    matrix = matrix.mT if (matrix.shape[0] > matrix.shape[1]) != (rows > columns) else matrix
    pad = (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])
    return torch.nn.functional.pad(matrix, pad) if any(pad) else matrix


def _out_of_corner(matrix: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of `_in_corner`."""
    if (size[0] > size[1]) != (matrix.shape[0] > matrix.shape[1]):
        matrix = matrix.mT
    return matrix[: size[0], : size[1]]
