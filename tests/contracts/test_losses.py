"""What every loss must obey; losses are found by walking the package, so a new one is tested by itself."""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from rarevox import losses
from rarevox.transforms import component_regions

CONFIGS = Path(losses.__file__).parents[1] / "configs" / "losses"


def public_losses() -> list[type[nn.Module]]:
    found = {}
    for info in pkgutil.iter_modules(losses.__path__, "rarevox.losses."):
        for name, value in vars(importlib.import_module(info.name)).items():
            is_loss = inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == info.name
            if is_loss and not name.startswith("_") and not inspect.isabstract(value):
                found[name] = value
    return [found[name] for name in sorted(found)]


LOSSES = public_losses()
OPTIONS = {"batch": True, "include_background": False, "sigmoid": True, "ignore_index": 1, "squared": True}


def variants(*, pairs: bool = False) -> list:
    """Every loss with its defaults and with each shared option that it has; with ``pairs`` also with any two."""
    cases = []
    for loss in LOSSES:
        names = [name for name in OPTIONS if name in inspect.signature(loss).parameters]
        for chosen in itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(3 if pairs else 2)):
            options = {name: OPTIONS[name] for name in chosen}
            cases.append(pytest.param(loss, options, id="-".join((loss.__name__, *chosen))))
    return cases


every_loss = pytest.mark.parametrize("loss_class", LOSSES)
every_mixture = pytest.mark.parametrize("loss_class", [c for c in LOSSES if issubclass(c, losses.CombinedLoss)])
every_variant = pytest.mark.parametrize(("loss_class", "options"), variants())
every_pair_of_options = pytest.mark.parametrize(("loss_class", "options"), variants(pairs=True))


def with_regions(loss: nn.Module, labels: Tensor, classes: int) -> Tensor:
    """The labels as the loss takes them: with component regions where it needs them."""
    if not loss.needs_regions:
        return labels
    regions = [component_regions(sample, num_classes=classes) for sample in labels]
    return torch.cat((labels, torch.stack(regions).to(labels.dtype)), 1)


def example(loss: nn.Module, shape: tuple[int, ...] = (2, 3, 3, 4, 5), dtype: torch.dtype = torch.float64):
    """Logits, labels and weight for a loss; one binary logit where it was made with ``sigmoid``."""
    generator = torch.Generator().manual_seed(7)
    classes = 2 if loss.sigmoid else shape[1]
    logits = torch.randn((shape[0], 1 if loss.sigmoid else classes, *shape[2:]), generator=generator).to(dtype)
    labels = torch.randint(0, classes, (shape[0], 1, *shape[2:]), generator=generator)
    weight = torch.rand(labels.shape, generator=generator).to(dtype) + 0.1
    return logits, with_regions(loss, labels, classes), weight


def certain(labels: Tensor, classes: int, sharpness: float) -> Tensor:
    return sharpness * (2 * torch.stack([(labels[:, 0] == index).double() for index in range(classes)], 1) - 1)


def test_the_walk_finds_the_losses_and_the_package_exports_them():
    assert len(LOSSES) >= 13
    assert all(getattr(losses, loss.__name__) is loss for loss in LOSSES)


@every_loss
def test_options_are_keyword_only_and_the_class_is_documented(loss_class):
    parameters = inspect.signature(loss_class).parameters.values()
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)
    assert ">>>" in loss_class.__doc__
    assert "mpty rule" in inspect.getdoc(loss_class) or "empty\n    rule" in loss_class.__doc__


@pytest.mark.float64
@every_pair_of_options
def test_gradient(loss_class, options):
    if loss_class is losses.WeightedCrossEntropyLoss:
        # Its weight follows the prediction without a gradient, so differences cannot check it; its own test does.
        options = {**options, "class_weights": (0.5, 2.0) if "sigmoid" in options else (0.5, 2.0, 1.0)}
    loss = loss_class(**options)
    logits, labels, weight = example(loss, (2, 3, 2, 3))
    assert len(labels[:, 0].unique()) == (2 if loss.sigmoid else 3), "every class occurs"
    assert torch.autograd.gradcheck(lambda z: loss(z, labels, weight), logits.requires_grad_())


@every_variant
def test_the_result_is_a_finite_scalar_with_a_finite_gradient(loss_class, options):
    loss = loss_class(**options)
    for dtype, result in ((torch.float64, torch.float64), (torch.float32, torch.float32)):
        logits, labels, _ = example(loss, dtype=dtype)
        value = loss(logits.requires_grad_(), labels)
        assert value.shape == ()
        assert value.dtype == result
        assert value > 0
        value.backward()
        assert torch.isfinite(logits.grad).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("magnitude", [80.0, 20.0, 0.0])
def test_extreme_logits_stay_finite(loss_class, dtype, magnitude):
    loss = loss_class()
    logits, labels, _ = example(loss)
    for reference in (labels, torch.zeros_like(labels)):
        leaf = (logits.sign() * magnitude).to(dtype).requires_grad_()
        value = loss(leaf, reference)
        value.backward()
        assert torch.isfinite(value)
        assert value.dtype == torch.float32
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.dtype == dtype


@every_loss
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (2, 3, 5, 4, 3)])
def test_one_to_three_axes_and_any_order_of_voxels(loss_class, shape):
    loss = loss_class()
    logits, labels, weight = example(loss, shape)
    value = loss(logits, labels, weight)
    for axis in range(2, len(shape)):
        flipped = (tensor.flip(axis) for tensor in (logits, labels, weight))
        torch.testing.assert_close(loss(*flipped), value, rtol=1e-12, atol=0)
    order = torch.randperm(logits[0, 0].numel(), generator=torch.Generator().manual_seed(1))
    shuffled = (tensor.flatten(2)[..., order] for tensor in (logits, labels, weight))
    torch.testing.assert_close(loss(*shuffled), value, rtol=1e-12, atol=0)


@every_variant
def test_order_of_the_batch_is_of_no_consequence(loss_class, options):
    loss = loss_class(**options)
    logits, labels, weight = example(loss)
    torch.testing.assert_close(
        loss(logits.flip(0), labels.flip(0), weight.flip(0)), loss(logits, labels, weight), rtol=1e-12, atol=0
    )


@every_loss
def test_per_sample_is_the_mean_over_samples_and_batch_does_not_see_them(loss_class):
    logits, labels, weight = example(loss_class())
    single = loss_class(batch=False)
    alone = [single(logits[[i]], labels[[i]], weight[[i]]) for i in range(2)]
    torch.testing.assert_close(single(logits, labels, weight), torch.stack(alone).mean())
    if not single.needs_regions:  # regions are numbered within a sample
        pooled = loss_class(batch=True)
        joined = [tensor.transpose(0, 1).flatten(1, 2)[None] for tensor in (logits, labels, weight)]
        torch.testing.assert_close(pooled(logits, labels, weight), pooled(*joined))


@every_variant
def test_weights_of_one_are_no_weights_and_their_scale_is_of_no_consequence(loss_class, options):
    loss = loss_class(**options)
    logits, labels, weight = example(loss)
    torch.testing.assert_close(loss(logits, labels, torch.ones_like(weight)), loss(logits, labels))
    torch.testing.assert_close(loss(logits, labels, 3 * weight), loss(logits, labels, weight))


@every_loss
def test_a_weight_of_zero_is_the_ignore_label_and_a_smaller_volume(loss_class):
    loss, ignoring = loss_class(), loss_class(ignore_index=255)
    logits, labels, weight = example(loss)
    masked = weight.clone()
    masked[..., 3:] = 0
    ignored = labels.clone()
    ignored[:, 0, ..., 3:] = 255
    expected = loss(logits[..., :3], labels[..., :3], weight[..., :3])
    torch.testing.assert_close(loss(logits, labels, masked), expected)
    torch.testing.assert_close(ignoring(logits, ignored, weight), expected)


@every_variant
def test_nothing_counted_costs_nothing(loss_class, options):
    loss = loss_class(**options)
    logits, labels, weight = example(loss)
    value = loss(logits.requires_grad_(), labels, torch.zeros_like(weight))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_labels_of_any_type(loss_class, dtype):
    loss = loss_class()
    logits, labels, weight = example(loss)
    assert loss(logits, labels.to(dtype), weight) == loss(logits, labels, weight)


@every_loss
def test_autocast_changes_nothing(loss_class):
    loss = loss_class()
    logits, labels, weight = example(loss, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, labels, weight)
    assert inside == loss(logits, labels, weight)


@every_variant
def test_a_perfect_prediction_costs_nothing(loss_class, options):
    loss = loss_class(**options)
    if loss.sigmoid:
        _, labels, _ = example(loss)
        logits = certain(labels, 2, 60.0)
        logits = logits[:, 1:] - logits[:, :1]
    else:
        _, labels, _ = example(loss)
        logits = certain(labels, 3, 60.0)
    assert abs(loss(logits, labels).item()) < 1e-10


@every_loss
@pytest.mark.parametrize("batch", [False, True])
def test_absent_and_not_predicted_costs_nothing(loss_class, batch):
    loss = loss_class(batch=batch)
    labels = with_regions(loss, torch.zeros(2, 1, 4, 4, 4), 3)
    assert abs(loss(certain(labels, 3, 60.0), labels).item()) < 1e-10


@every_loss
@pytest.mark.parametrize("others_present", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_absent_and_predicted_costs_something_with_a_gradient_that_removes_it(loss_class, others_present, batch):
    loss = loss_class(batch=batch)
    reference = torch.zeros(1, 1, 4, 4, 4)
    if others_present:
        reference[..., :1] = 2
    prediction = reference.clone()
    prediction[0, 0, 1, 1, 1:] = 1  # three voxels claimed for class 1, which has no reference
    claimed = prediction[:, 0] == 1
    labels = with_regions(loss, reference, 3)
    nothing_claimed = loss(certain(reference, 3, 2.0), labels)
    logits = certain(prediction, 3, 2.0).requires_grad_()
    value = loss(logits, labels)
    assert value > nothing_claimed
    value.backward()
    assert (logits.grad[:, 1][claimed] > 0).all()  # descending lowers the logit of class 1 there
    assert (logits.grad[:, 0][claimed] < 0).all()  # and raises that of the background


@every_loss
def test_a_step_down_the_gradient_lowers_the_loss(loss_class):
    loss = loss_class()
    logits, labels, weight = example(loss)
    value = loss(logits.requires_grad_(), labels, weight)
    value.backward()
    assert loss(logits - 1e-3 * logits.grad / logits.grad.abs().max(), labels, weight) < value


@every_loss
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, y, w: (z, torch.cat((y[:, :1] + 1, y[:, 1:]), 1), w), "3 classes allow 0 to 2"),
        (lambda z, y, w: (z, y[..., 1:], w), "labels have shape"),
        (lambda z, y, w: (z, y, w[..., 1:]), "weight has shape"),
        (lambda z, y, w: (z, y, -w), "weight reaches down"),
        (lambda z, y, w: (z[:, :1], y[:, :1], w), "single class"),
        (lambda z, y, w: (z[:0], y[:0], w[:0]), "empty"),
        (lambda z, y, w: (z * float("nan"), y, w), "NaN or an infinity"),
        (lambda z, y, w: (z.clone().index_put_((torch.tensor(0),) * 5, -torch.inf * z[0, 0, 0, 0, 0]), y, w), "NaN"),
    ],
)
def test_bad_input_is_a_clear_value_error(loss_class, change, message):
    loss = loss_class()
    with pytest.raises(ValueError, match=message):
        loss(*change(*example(loss)))


@every_mixture
def test_two_terms_mix_into_the_loss(loss_class):
    loss = loss_class(alpha=0.25)
    logits, labels, weight = example(loss)
    terms = loss.terms(logits, labels, weight)
    first, second = terms.values()
    torch.testing.assert_close(loss(logits, labels, weight), 2 * (0.25 * first + 0.75 * second))
    loss.alpha = 1
    torch.testing.assert_close(loss(logits, labels, weight), 2 * first)
    restored = loss_class()
    restored.load_state_dict(loss.state_dict())
    assert restored.alpha == 1
    with pytest.raises(ValueError, match=r"alpha=1\.5"):
        loss.alpha = 1.5
    with pytest.raises(ValueError, match="alpha=-1"):
        loss_class(alpha=-1)


@every_mixture
def test_each_term_has_its_own_gradient(loss_class):
    loss = loss_class(alpha=0.25)
    logits, labels, weight = example(loss)
    first, second = loss.terms(logits.requires_grad_(), labels, weight).values()
    (of_first,) = torch.autograd.grad(first, logits, retain_graph=True)
    (of_second,) = torch.autograd.grad(second, logits)
    (of_loss,) = torch.autograd.grad(loss(logits, labels, weight), logits)
    torch.testing.assert_close(0.5 * of_first + 1.5 * of_second, of_loss)


@every_loss
def test_a_loss_can_be_copied_and_printed(loss_class):
    loss = loss_class()
    logits, labels, weight = example(loss)
    assert copy.deepcopy(loss)(logits, labels, weight) == loss(logits, labels, weight)
    assert loss_class.__name__ in repr(loss)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_overlay_makes_a_loss(path):
    definition = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["loss"])
    package, name = definition.pop("_target_").rsplit(".", 1)
    assert definition.pop("ignore_index") == "@ignore_index"  # what `rarevox prepare` found, else None
    loss = getattr(importlib.import_module(package), name)(**definition)
    logits, labels, weight = example(loss)
    assert torch.isfinite(loss(logits, labels, weight))
    getattr(importlib.import_module(package), name)(**definition, ignore_index=255)


def test_every_loss_has_an_overlay():
    named = {yaml.safe_load(path.read_text(encoding="utf-8"))["loss"]["_target_"] for path in CONFIGS.glob("*.yaml")}
    assert named == {f"rarevox.losses.{loss.__name__}" for loss in LOSSES}
