"""What kind of loss each class is, and that a loss of one's own needs nothing that it has not."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rarevox import losses
from rarevox.losses import CombinedLoss, CombinedTableLoss, Loss, TableLoss

FOLDER = Path(losses.__file__).parent
CLASSES = [
    loss
    for name in losses.__all__
    if inspect.isclass(loss := getattr(losses, name)) and issubclass(loss, Loss) and not inspect.isabstract(loss)
]


@pytest.mark.parametrize("loss_class", CLASSES)
def test_a_loss_has_one_term_or_two(loss_class):
    assert issubclass(loss_class, TableLoss) != issubclass(loss_class, CombinedLoss)


@pytest.mark.parametrize("loss_class", [loss for loss in CLASSES if issubclass(loss, (TableLoss, CombinedTableLoss))])
def test_the_cost_of_the_table_is_the_loss(loss_class, printed):
    loss = loss_class()
    logits, labels, weight = printed.example()
    cost = loss.cost(loss.table(logits, labels, weight))
    assert cost.shape == (2,) if not loss.batch else (1,)
    assert torch.equal(cost.mean(), loss(logits, labels, weight))


def test_no_method_does_nothing_but_refuse():
    """A class that cannot do what its base promises stands under the wrong base."""
    for path in FOLDER.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                body = [line for line in function.body if not is_docstring(line)]
                assert not (len(body) == 1 and isinstance(body[0], ast.Raise)), f"{path.name}: {function.name}"


def is_docstring(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def test_two_terms_of_ones_own_need_no_table():
    class MeanAndSquare(CombinedLoss):
        def terms(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
            return {"mean": logits.mean(), "square": logits.square().mean()}

    logits = torch.tensor([[[1.0, 3.0]]])  # mean 2, mean square 5: 2 (2 / 4 + 3 · 5 / 4)
    assert MeanAndSquare(alpha=0.25)(logits, torch.zeros(1, 1, 2)).item() == 8.5


def test_a_formula_of_ones_own_needs_only_its_cost():
    class ClaimedShare(TableLoss):
        def cost(self, table: losses.SumTable) -> Tensor:
            return (table.probability / table.voxels)[..., 1]

    assert ClaimedShare()(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item() == 0.5


@pytest.mark.parametrize("base", [Loss, TableLoss, CombinedLoss, CombinedTableLoss])
def test_the_bases_are_abstract(base):
    with pytest.raises(TypeError, match="abstract"):
        base()


@pytest.mark.parametrize("path", sorted((FOLDER / "sums").rglob("*.py")), ids=lambda path: path.name)
def test_sums_know_no_loss(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rarevox"):
            assert node.module.startswith(("rarevox.losses.sums", "rarevox.compiled")), node.module
