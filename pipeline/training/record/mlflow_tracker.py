"""The numbers of a training in MLflow, one MLflow run for one run folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.files import read_json, write_json

BATCH = 1000
"""Metrics that MLflow takes in one request."""


def store_uri(store: str, folder: Path) -> str:
    """Where MLflow keeps its runs: ``local`` is a database in the run's ``logs`` folder, another folder one in there.

    >>> store_uri("https://mlflow.example.org", Path("logs"))
    'https://mlflow.example.org'
    >>> store_uri("local", Path("/run/logs"))
    'sqlite:////run/logs/mlflow.db'
    """
    if "://" in store or store == "databricks":
        return store
    return f"sqlite:///{(folder if store == 'local' else Path(store)).resolve()}/mlflow.db"


def mlflow_tracker(store: str | None, **options: Any) -> MlflowTracker | None:
    """The tracker, or None without a store."""
    return None if store is None else MlflowTracker(store, **options)


class MlflowTracker:
    """Metrics by name and step, and the parameters of the run, to MLflow.

    ``mlflow.json`` in ``folder`` holds ``tracking_uri``, ``run_id`` and ``experiment``; a resumed run goes on in the
    same MLflow run, and does not send what is there already: the steps after its checkpoint, which it takes again.
    Metrics are sent every ``every_seconds``, before each checkpoint and at the end; where that fails they are kept and
    sent with the next ones.

    Args:
        store: ``local``, a folder, or a URI that MLflow knows (``http://…``, ``sqlite:///…``).
        folder: the run's ``logs`` folder, by whose parent the MLflow run is called.
        experiment: MLflow's experiment; made if it is not there.
        parameters: noted once.
        every_seconds: between two requests.

    Raises:
        RequestError: the package is missing; from ``open``: the store cannot be reached.
    """

    def __init__(
        self,
        store: str,
        *,
        folder: str | Path,
        experiment: str = "rarevox",
        parameters: Mapping[str, Any] | None = None,
        every_seconds: float = 10,
    ) -> None:
        if find_spec("mlflow") is None:
            raise RequestError(
                "mlflow is set and the package is not installed; pip install mlflow-skinny sqlalchemy alembic"
            )
        self.folder = Path(folder)
        self.uri = store_uri(str(store), self.folder)
        self.experiment = experiment
        self.parameters = {name: str(value)[:500] for name, value in (parameters or {}).items()}
        self.every_seconds = every_seconds
        self._held: list[Any] = []
        self._client: Any = None
        self._run = ""
        self._there: dict[str, int] = {}
        self._sent = time.monotonic()

    def open(self, _: int) -> None:
        """Go on with the MLflow run that ``mlflow.json`` names, or begin one."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # names of data and structures stay here
        from mlflow import MlflowClient

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client = MlflowClient(tracking_uri=self.uri)
            self._run = self._earlier()
            self._there = self._last_steps() if self._run else {}
            self._run = self._run or self._new()
        except Exception as error:
            raise RequestError(
                f"MLflow at {self.uri} cannot be used: {reason_of(error)}; see --set mlflow=…"
            ) from error
        stated = {"tracking_uri": self.uri, "run_id": self._run, "experiment": self.experiment}
        write_json(self.folder / "mlflow.json", stated)

    def _earlier(self) -> str:
        """The id of this folder's MLflow run, if the store has it."""
        path = self.folder / "mlflow.json"
        if not path.is_file():
            return ""
        from mlflow.exceptions import MlflowException

        run = str(read_json(path)["run_id"])
        try:
            self._client.get_run(run)
        except MlflowException:
            return ""
        self._client.update_run(run, status="RUNNING")
        return run

    def _last_steps(self) -> dict[str, int]:
        """The last step of each metric that this MLflow run has."""
        names = self._client.get_run(self._run).data.metrics
        histories = {name: self._client.get_metric_history(self._run, name) for name in names}
        return {name: max(metric.step for metric in history) for name, history in histories.items() if history}

    def _new(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        run = str(self._client.create_run(experiment, run_name=self.folder.resolve().parent.name).info.run_id)
        for name, value in self.parameters.items():
            self._client.log_param(run, name, value)
        return run

    def add(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Numbers by name at a step; a letter that MLflow refuses in names becomes an underscore."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for name, value in scalars.items():
            plain = re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)
            if iteration > self._there.get(plain, -1):
                self._held.append(Metric(plain, value, now, iteration))

    def flush(self, everything: bool = False) -> None:
        """Send what is held, unless that was done a moment ago and not ``everything`` is asked for."""
        if everything or time.monotonic() - self._sent >= self.every_seconds:
            self._send()

    def close(self, status: str) -> None:
        """Send everything and end the MLflow run."""
        self._send()
        try:
            self._client.set_terminated(self._run, status)
        except Exception as error:
            raise OSError(f"MLflow at {self.uri}: {reason_of(error)}") from error

    def _send(self) -> None:
        try:
            while self._held:
                self._client.log_batch(self._run, metrics=self._held[:BATCH])
                del self._held[:BATCH]
        except Exception as error:
            raise OSError(f"MLflow at {self.uri}: {reason_of(error)}") from error
        finally:
            self._sent = time.monotonic()
