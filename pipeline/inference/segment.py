"""A trained run, loaded once, that turns scans into label maps on their own grid."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bundle import require_run
from pipeline.compose import parse_setting, put, read_yaml
from pipeline.errors import RequestError, reason_of
from pipeline.training.train import build
from transforms.clean import CleanLabelsd


@dataclass
class Segmentation:
    """What came of one scan.

    Attributes:
        item: the entry of the data list.
        labels: (X, Y, Z) label values on the scan's grid; None where it failed.
        reason: why it failed, one sentence.
        seconds: reading, network and the way back.
        notes: what the inferer decided.
        raw: the label values before post-processing; None where none is declared.
    """

    item: dict[str, Any]
    labels: np.ndarray | None
    reason: str = ""
    seconds: float = 0.0
    notes: Mapping[str, Any] | None = None
    raw: np.ndarray | None = None

    @property
    def case(self) -> str:
        """The scan's name."""
        return str(self.item["case"])


class Segmenter:
    """The preprocessing, network, inferer and way back of a run's bundle configuration, built once.

    Args:
        run: the run folder.
        stage: ``inference`` or ``evaluate``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's configuration.

    Raises:
        RequestError: no run, no weights, weights of another network, an unknown key, post-processing of no structure.
    """

    def __init__(
        self, run: str | Path, stage: str = "inference", *, device: str = "auto", settings: Sequence[str] = ()
    ) -> None:
        self.run = require_run(run, stage)
        absent: dict[str, Any] = {"gates": {}, "post_processing": {}}  # in runs of an earlier version
        self.config = absent | read_yaml(self.run / "configs" / f"{stage}.yaml")
        self.config["bundle_root"] = str(self.run)
        put(self.config, "device#name", device)
        for text in settings:
            put(self.config, *parse_setting(text))
        parts = ("load_weights", "preprocessing", "inferer", "network", "device")
        wanted = {key: f"@{key}" for key in parts}
        native = {"_target_": "transforms.LabelsOnNativeGridd", "keys": "pred", "values": "@label_values"}
        built = build(self.config | {"_segmenter": wanted | {"native": native}}, "_segmenter")
        structures = dict(zip(self.config["structures"], self.config["label_values"][1:], strict=True))
        try:
            self.cleaner = CleanLabelsd("pred", self.config["post_processing"], structures)
        except ValueError as error:
            raise RequestError(str(error)) from error
        self.preprocessing, self.inferer, self.network = built["preprocessing"], built["inferer"], built["network"]
        self.device, self.to_native = built["device"], built["native"]

    def read(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Read and preprocess one scan; raises whatever is wrong with it."""
        data = self.preprocessing(dict(item))
        expected, found = len(self.config["channels"]), data["image"].shape[0]
        if found != expected:
            names = ", ".join(self.config["channels"])
            raise ValueError(f"the scan has {found} channel(s) and the network takes {expected} ({names})")
        if not bool(torch.isfinite(data["image"].as_tensor().sum())):
            raise ValueError("the scan holds NaN or infinite voxels; replace them before prediction")
        return data

    def segment(self, data: dict[str, Any]) -> np.ndarray:
        """Label values (X, Y, Z) of a preprocessed scan on its own grid."""
        return self._both(data)[0]

    def _both(self, data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """The label values, and what they were before post-processing if there is any."""
        prediction = self.inferer(data["image"][None], self.network)[0]
        found = self.cleaner(self.to_native({**data, "pred": prediction}))
        return np.asarray(found["pred"])[0], np.asarray(found["raw"])[0] if "raw" in found else None

    def __call__(self, items: Iterable[Mapping[str, Any]]) -> Iterator[Segmentation]:
        """Segment scans one after the other, the next being read while this one is computed.

        A scan that cannot be read or segmented gives its reason and stops nothing.
        """
        listed = [dict(item) for item in items]
        with ThreadPoolExecutor(1) as pool:
            upcoming = [pool.submit(self.read, listed[0])] if listed else []
            for position, item in enumerate(listed):
                began = time.monotonic()
                current = upcoming.pop()
                try:
                    data = current.result()
                    if position + 1 < len(listed):
                        upcoming.append(pool.submit(self.read, listed[position + 1]))
                    labels, raw = self._both(data)
                    del data
                    yield Segmentation(item, labels, "", time.monotonic() - began, dict(self.inferer.notes), raw)
                except Exception as error:  # whatever is wrong with one scan must not stop the others
                    if not upcoming and position + 1 < len(listed):
                        upcoming.append(pool.submit(self.read, listed[position + 1]))
                    yield Segmentation(item, None, reason_of(error), time.monotonic() - began)
