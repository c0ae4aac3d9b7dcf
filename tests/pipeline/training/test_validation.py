from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset

from rarevox.networks import Geometry
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.training import validation as module
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.validation import Validation


class Clock:
    """Wall time that only moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Validator:
    """One case of 20³; every run takes ``seconds`` on the clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.runs = clock, seconds, 0
        self.inferer: Any = None
        dataset = [{"image": torch.zeros(1, 20, 20, 20)}]
        self.data_loader = SimpleNamespace(dataset=dataset, __len__=lambda: 1)
        self.data_loader = type("Loader", (), {"dataset": dataset, "__len__": lambda self: 1})()

    def add_event_handler(self, *_: object) -> Any:
        return nullcontext()

    def run(self) -> None:
        self.clock.now += self.seconds
        self.runs += 1


class Scores:
    """A metric of given values: a mean, or the Dice of each case."""

    def __init__(self, values: Iterator[float | list[float]]) -> None:
        self.values = values
        self.rows: list[list[float]] = []

    def compute(self) -> float:
        value = next(self.values)
        self.rows = [[dice] for dice in value] if isinstance(value, list) else [[value]]
        return sum(dice for (dice,) in self.rows) / len(self.rows)

    def per_structure(self) -> dict[str, float]:
        return {}


def train(
    clock: Clock,
    validator: Validator,
    folder: Path,
    *,
    steps: int,
    step_seconds: float,
    count: int = 10,
    found: Sequence[float | list[float]] | None = None,
    **options: Any,
) -> tuple[list[int], Any]:
    """Train ``steps`` steps on patches of 10³; returns the iterations that were validated."""
    rows: list[int] = []
    budget = SimpleNamespace(progress=lambda iteration: iteration / steps, seconds=lambda: clock.now - 100.0)
    scores = iter(torch.linspace(0.1, 0.9, 100).tolist() if found is None else found)
    metric = Scores(scores)
    log = SimpleNamespace(validation=lambda row: rows.append(row["iteration"]), mining=lambda row: None)
    validation = Validation(validator, metric=metric, budget=budget, log=log, folder=folder, count=count, **options)

    def step(engine: Engine, batch: dict[str, torch.Tensor]) -> None:
        clock.now += step_seconds

    engine = Engine(step)
    engine.network = torch.nn.Linear(1, 1)
    engine.state.device = "cpu"
    validation.attach(engine)
    engine.run([{"image": torch.zeros(1, 1, 10, 10, 10)}] * steps, max_epochs=1)
    return rows, validation


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


def test_cheap_validations_come_evenly(clock: Clock, tmp_path: Path) -> None:
    """20³ voxels are 8 patches: estimated at 1 s · 8 / 3 = 2.7 s, so the first waits for 27 s; then 0.1 s each."""
    rows, _ = train(clock, Validator(clock, 0.1), tmp_path, steps=100, step_seconds=1.0)
    assert rows == [27, 30, 40, 50, 60, 70, 80, 90, 100]


def test_what_a_validation_draws_moves_no_later_step(clock: Clock, tmp_path: Path) -> None:
    """When it comes is the clock's choice, and dropout takes its numbers from the global generator."""

    class Drawing(Validator):
        def run(self) -> None:
            super().run()
            torch.rand(3), np.random.rand(3), random.random()

    def drawn(seconds: float) -> tuple[int, list[float]]:
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        rows, _ = train(clock, Drawing(clock, seconds), tmp_path, steps=100, step_seconds=1.0)
        return len(rows), [float(torch.rand(())), np.random.rand(), random.random()]

    (often, first), (seldom, second) = drawn(0.1), drawn(9.0)
    assert often > seldom and first == second


def test_zeros_around_the_scans_count(clock: Clock, tmp_path: Path) -> None:
    """With 5 voxels at each face a scan of 20³ is one of 30³, 27 patches: 9 s, so the first waits for 90 s."""
    validator = Validator(clock, 0.1)
    validator.inferer = DenseInferer(Geometry(receptive_field=(9, 9, 9)), loss_margin=5)
    rows, _ = train(clock, validator, tmp_path, steps=100, step_seconds=1.0)
    assert rows == [90, 100]


def test_a_validation_that_would_take_too_much_comes_only_at_the_end(clock: Clock, tmp_path: Path) -> None:
    """Estimated at 8/3 of a step: more than a tenth of 20 steps."""
    validator = Validator(clock, 60.0)
    rows, validation = train(clock, validator, tmp_path, steps=20, step_seconds=1.0)
    assert rows == [20]
    assert validation.spent_seconds == 60.0
    assert (tmp_path / "models" / "model.pt").is_file()


def test_what_one_took_decides_when_the_next_comes(clock: Clock, tmp_path: Path) -> None:
    """The first, allowed at 27 s, takes 12 s; the next needs 12 + 12 s ≤ 0.1 · t, which 100 s never reach."""
    rows, validation = train(clock, Validator(clock, 12.0), tmp_path, steps=100, step_seconds=1.0)
    assert rows == [27, 100]
    assert validation.last_seconds == 12.0


def test_mining_is_in_the_time_of_a_validation(clock: Clock, tmp_path: Path) -> None:
    """With two more scans of 20³ one is estimated at 8 s, and waits for 80 s; then it takes 2 s, but for the last."""
    times: list[float] = []

    def look(device: str, stopped: object) -> None:
        clock.now += 1.9
        times.append(clock.now)

    mining = SimpleNamespace(scans=2, voxels=lambda: 2 * 20**3, look=look, take=lambda mined: {})
    validator = Validator(clock, 0.1)
    rows, validation = train(clock, validator, tmp_path, steps=100, step_seconds=1.0, mining=mining)
    assert (rows, len(times)) == ([80, 90, 100], 2)
    assert validation.spent_seconds == pytest.approx(2 + 2 + 0.1)
    clock.now, times[:] = 100.0, []
    empty = Validator(clock, 0.1)
    empty.data_loader = type("Loader", (), {"dataset": CacheDataset([], progress=False), "__len__": lambda self: 0})()
    rows, validation = train(clock, empty, tmp_path, steps=100, step_seconds=1.0, mining=mining)
    assert rows == [] and times[0] == 100 + 54 + 1.9  # 16 patches: 5.3 s, which wait for 53.3 s


def test_patience_counts_validations_in_a_row_without_a_better_one(clock: Clock, tmp_path: Path) -> None:
    """Scores 0.2, 0.5, 0.4, 0.6, 0.6, 0.5: two in a row that are not above 0.6 end it; a tie is not better."""
    scores = [0.2, 0.5, 0.4, 0.6, 0.6, 0.5, 0.9, 0.9]
    options = {"steps": 100, "step_seconds": 1.0, "found": scores, "patience": 2}
    rows, validation = train(clock, Validator(clock, 0.1), tmp_path, **options)
    assert len(rows) == 6
    assert rows[-1] < 100
    assert validation.best == 0.6
    again = Validation(validation.validator, metric=None, budget=None, log=None, folder=tmp_path, patience=2)
    again.load_state_dict(validation.state_dict())
    engine = Engine(lambda engine, batch: None)
    again._stop_early(engine)
    assert engine.should_terminate


def test_no_patience_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="patience is 0"):
        Validation(None, metric=None, budget=None, log=None, folder=tmp_path, patience=0)


def test_a_validation_that_a_signal_cuts_short_comes_again(clock: Clock, tmp_path: Path) -> None:
    validator = Validator(clock, 1.0)
    _, validation = train(clock, validator, tmp_path, steps=100, step_seconds=1.0)
    done, iteration = validation._done, validation.iteration
    validator.run = lambda: setattr(validation, "interrupted", True)  # type: ignore[method-assign]
    assert validation.validate(Engine(lambda engine, batch: None)) is False
    assert (validation._done, validation.iteration) == (done, iteration)


def test_without_validation_an_interrupted_run_keeps_its_last_weights(clock: Clock, tmp_path: Path) -> None:
    """Also those of a second interruption, which have learnt more than what the first one left."""
    for value in (1.0, 2.0):
        validator = Validator(clock, 1.0)
        validator.data_loader = type("Loader", (), {"dataset": [], "__len__": lambda self: 0})()
        budget = SimpleNamespace(progress=lambda iteration: iteration / 100, seconds=lambda: 0.0)
        log = SimpleNamespace(validation=lambda row: None, mining=lambda row: None)
        kept = Validation(validator, metric=Scores(iter(())), budget=budget, log=log, folder=tmp_path, count=10)
        engine = Engine(lambda engine, batch: None)
        engine.network = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(engine.network.weight, value)
        kept.attach(engine)
        kept.interrupted = True
        engine.run([{"image": torch.zeros(1, 1, 10, 10, 10)}] * 5, max_epochs=1)
    assert float(load_tensors(kept.model_path)["weight"]) == 2.0


def test_a_process_without_a_case_of_its_own_goes_on(clock: Clock, tmp_path: Path) -> None:
    """With more processes than validation cases some have none; the time of a validation is asked of them as well."""
    validator = Validator(clock, seconds=1)
    empty = CacheDataset([], progress=False)
    validator.data_loader = type("Loader", (), {"dataset": empty, "__len__": lambda self: 0})()
    rows, validation = train(clock, validator, tmp_path, steps=10, step_seconds=1)
    assert (rows, validator.runs) == ([], 0)
    assert validation.model_path.exists()


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        # Differences 0.04, −0.02, 0.04 of the same cases: mean 0.02, standard error 0.02: luck may have made them.
        ([[0.84, 0.88, 0.84], [0.80, 0.90, 0.80]], 2),
        # 0.04, 0.03, 0.035: mean 0.035, standard error 0.003: the earlier weights are better.
        ([[0.84, 0.93, 0.835], [0.80, 0.90, 0.80]], 1),
        # In the middle of the budget the higher mean counts alone: of three, the second is no candidate, the last is.
        ([[0.84, 0.88, 0.84], [0.80, 0.90, 0.80], [0.81, 0.90, 0.80]], 3),
    ],
    ids=["within the error", "beyond the error", "at the end alone"],
)
def test_the_last_weights_are_kept_unless_the_best_are_clearly_better(
    clock: Clock, tmp_path: Path, found: list[float | list[float]], kept: int
) -> None:
    count = len(found)
    _, validation = train(clock, Validator(clock, 0.0), tmp_path, steps=100, step_seconds=1.0, count=count, found=found)
    assert validation.best == pytest.approx(sum(found[kept - 1]) / 3)  # type: ignore[arg-type]
    again = Validation(None, metric=None, budget=None, log=None, folder=tmp_path)  # type: ignore[arg-type]
    again.load_state_dict(validation.state_dict())
    assert again.best_rows == [[dice] for dice in found[kept - 1]]  # type: ignore[union-attr]
