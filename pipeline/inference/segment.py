"""A trained run, loaded once, that turns scans into label maps on their own grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from rarevox.networks.cpu.ops import load_kernels
from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.data.missing import refusal, require_channels, told_missing
from rarevox.pipeline.data.spacing import lone_slice, unlike_spacing
from rarevox.pipeline.device import release_memory
from rarevox.pipeline.entries import parse_setting, put
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.hints import check_hints
from rarevox.pipeline.inference.brought_up import brought_up
from rarevox.pipeline.inference.native_watch import NativeWatch
from rarevox.pipeline.inference.points import check_points
from rarevox.pipeline.inference.region import (
    RegionWatch,
    check_mask_grid,
    model_box,
    native_grid,
    placed_at,
    read_region,
    region_box,
    shifted,
)
from rarevox.pipeline.inference.tiling.sending import in_pinned_memory
from rarevox.pipeline.inference.tiling.slabs import slabs
from rarevox.pipeline.inference.tiling.tiles import Box
from rarevox.pipeline.inference.watch import Together, Watch
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.pipeline.trust.gate import run_config
from rarevox.transforms.clean import CleanLabelsd
from rarevox.transforms.decision import Decision
from rarevox.transforms.intensity.outcome import NOT_FINITE
from rarevox.transforms.label_scores import LabelScores, without_unsure
from rarevox.transforms.labels import values_from_classes
from rarevox.transforms.native_grid import find_lattice, labels_on_grid
from rarevox.transforms.reading.stand_ins import MISSING, with_stand_ins
from rarevox.transforms.told import WARNINGS


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
        watch: who was shown the class probabilities; None where nobody asked.
        grid: shape and affine of the scan's file.
    """

    item: dict[str, Any]
    labels: np.ndarray | None
    reason: str = ""
    seconds: float = 0.0
    notes: Mapping[str, Any] | None = None
    raw: np.ndarray | None = None
    watch: Any = None
    grid: tuple[tuple[int, int, int], np.ndarray] | None = None

    @property
    def case(self) -> str:
        """The scan's name."""
        return str(self.item["case"])


def is_idle(data: Mapping[str, Any]) -> bool:
    """Whether a region of interest leaves nothing to do."""
    region = data.get("region")
    return region is not None and not region.any()


def corrects(run: Path) -> bool:
    """Whether a run learnt from scans with the bias field divided out (N4)."""
    return bool(read_yaml(run / "configs" / "inference.yaml").get("n4"))


class Segmenter:
    """The preprocessing, network, inferer and way back of a run's bundle configuration, built once.

    Args:
        run: the run folder.
        stage: ``inference`` or ``evaluate``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's configuration.
        uncorrected: of ``evaluate``: the scans come as they are, and a run that learnt from scans with the bias field
            divided out (N4) corrects them first. False: they are corrected copies.
        trust: build whatever the run's configuration says; see :mod:`rarevox.pipeline.trust.gate`.

    Raises:
        RequestError: no run, no weights, weights of another network, an unknown key, post-processing of no structure.
    """

    def __init__(
        self,
        run: str | Path,
        stage: str = "inference",
        *,
        device: str = "auto",
        settings: Sequence[str] = (),
        uncorrected: bool = False,
        trust: bool = False,
    ) -> None:
        self.run = require_run(run, stage)
        self.config = brought_up(run_config(self.run, stage, trust=trust), self.run)
        self.config["bundle_root"] = str(self.run.resolve())
        put(self.config, "device#name", device)
        if stage == "evaluate" and corrects(self.run):
            put(self.config, "n4", uncorrected)
        for text in settings:
            put(self.config, *parse_setting(text))
        check_hints(self.config)
        check_points(self.config)
        parts = ("load_weights", "preprocessing", "inferer", "network", "device", "in_channels")
        wanted = {key: f"@{key}" for key in parts}
        native = {"_target_": "rarevox.transforms.LabelsOnNativeGridd", "keys": "pred", "values": "@label_values"}
        built = build(self.config | {"_segmenter": wanted | {"native": native}}, "_segmenter")
        check_points(self.config, built["inferer"])
        structures = dict(zip(self.config["structures"], self.config["label_values"][1:], strict=True))
        try:
            rules, regions = self.config["post_processing"], self.config.get("regions")
            self.cleaner = CleanLabelsd("pred", rules, structures, regions=regions)
        except ValueError as error:
            raise RequestError(str(error)) from error
        self.preprocessing, self.inferer, self.network = built["preprocessing"], built["inferer"], built["network"]
        self.device, self.to_native, self.in_channels = built["device"], built["native"], int(built["in_channels"])
        self.score_gb: float | None = None
        self._slabs = 0
        self.cautions: list[str] = []

    @property
    def decision(self) -> Decision:
        """From probabilities to labels: that of the run, or of the first of an ensemble."""
        return getattr(self.inferer, "decision", None) or Decision({}, self.config["structures"])

    def read(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Read and preprocess one scan, and as ``region`` its region of interest where the item names one as ``roi``.

        Raises whatever is wrong with it.
        """
        if "mask" in item:
            check_mask_grid(item)
        missing = list(item.get(MISSING, ()))
        if reason := refusal(missing, self.config):
            raise ValueError(reason)
        whole = with_stand_ins(item, self.config["channels"])
        whole = {key: value for key, value in whole.items() if key != "roi"}
        channels = self.config["channels"]
        try:
            data: dict[str, Any] = self.preprocessing(whole)
        except (RuntimeError, ValueError) as error:
            if not is_out_of_memory(error):  # a normalisation may have met another number of channels, without names
                require_channels(self._channels_of(whole), len(channels), channels)
            raise
        require_channels(len(data["image"]), self.in_channels, channels)
        if not bool(torch.isfinite(data["image"].as_tensor().sum())):
            raise ValueError(f"the scan holds NaN or infinite voxels; {NOT_FINITE}")
        if "roi" in item:
            data["region"] = read_region(item["roi"], data["image"])
        return data

    def _channels_of(self, item: Mapping[str, Any]) -> int:
        """How many channels a scan has as it is read; as many as are wanted where it cannot be."""
        try:
            return len(self.preprocessing.transforms[0](item)["image"])
        except Exception:
            return len(self.config["channels"])

    def segment(self, data: dict[str, Any]) -> np.ndarray:
        """Label values (X, Y, Z) of a preprocessed scan on its own grid."""
        return self._both(data)[0]

    def _both(self, data: dict[str, Any], watch: Watch | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """The label values, and what they were before post-processing if there is any."""
        region = data.get("region")
        native = self._decided(data, watch, region)
        found: dict[Any, Any] = self.cleaner({"image": data["image"], "pred": native})
        labels, raw = np.asarray(found["pred"])[0], np.asarray(found["raw"])[0] if "raw" in found else None
        if region is not None and raw is not None:
            labels = labels * region  # holes are filled, but not outside
        return labels, raw

    def _decided(self, data: dict[str, Any], watch: Watch | None, region: np.ndarray | None) -> torch.Tensor:
        """Label values (1, X, Y, Z) on the scan's own grid, without components that lack confidence; within the region
        alone, where there is one, of which no voxel outside has a say."""
        confidences = self.decision.confidences
        found = LabelScores(self.decision) if confidences else None
        watches: list[Watch] = [one for one in (watch, found) if one is not None]
        shown = Together(watches) if len(watches) > 1 else next(iter(watches), None)
        if region is not None and shown is not None:
            shown = RegionWatch(shown, region)
        native = self._native(data, shown)
        if region is not None:
            native = native * torch.from_numpy(region)
        if found is None:
            return native
        labels = without_unsure(native[0].numpy(), found, confidences, self.config["label_values"])
        return torch.from_numpy(labels)[None]

    def _native(self, data: dict[str, Any], watch: Watch | None) -> torch.Tensor:
        """Label values (1, X, Y, Z) on the scan's own grid; outside the bounding box of its region, 0."""
        image, (shape, affine) = data["image"], native_grid(data["image"])
        dense = hasattr(self.inferer, "inside")
        if "region" in data and dense:
            wanted: Box | None = region_box(data["region"])
        else:
            wanted = [(0, n) for n in shape]
        self._slabs, self.cautions = 0, []
        with self._shown_to(watch, image) as shown:
            if wanted is None:
                return torch.zeros((1, *shape), dtype=torch.uint8)
            if dense and self.inferer.reduce == "scores":
                return self._by_slabs(image, wanted, shown)
            if "region" not in data or not dense:
                prediction = self.inferer(image[None], self.network)[0]
                self._keep_cautions()
                return self.to_native({"image": image, "pred": prediction})["pred"]
            box = model_box(image.shape[1:], np.asarray(image.affine), affine, wanted)
            if box is None:
                return torch.zeros((1, *shape), dtype=torch.uint8)
            prediction = self.inferer.inside(image.as_tensor(), self.network, box)
            self._keep_cautions()
            return self.to_native({"image": placed_at(image, box), "pred": prediction})["pred"]

    def _by_slabs(self, image: MetaTensor, wanted: Box, shown: NativeWatch | None) -> torch.Tensor:
        """Label values where class scores are interpolated: slab by slab, so that their memory is bounded."""
        (shape, affine), values = native_grid(image), self.config["label_values"]
        out = torch.zeros(shape, dtype=torch.uint8 if len(values) <= 256 else torch.int16)
        for slab in slabs(wanted, len(values), shape, image.shape[1:], self.score_gb):
            self._slabs += 1
            box = model_box(image.shape[1:], np.asarray(image.affine), affine, slab)
            if box is None:
                continue
            scores = self.scores_in(image, box)
            size = tuple(end - begin for begin, end in slab)
            place = tuple(slice(*span) for span in slab)
            show = None if shown is None else shown.moved([begin for begin, _ in slab])
            here = shifted(image.affine, box), size, shifted(affine, slab)
            out[place] = labels_on_grid(scores, *here, watch=show, weigh=getattr(self.inferer, "weighted", None))
        return values_from_classes(out, values)[None]

    def scores_in(self, image: MetaTensor, box: Box) -> torch.Tensor:
        """Class scores (C, *box) in a box of the network's grid."""
        scores: torch.Tensor = self.inferer.inside(image.as_tensor(), self.network, box, reduce="scores")
        self._keep_cautions()
        return scores

    def _keep_cautions(self) -> None:
        """Keep the inferer's warning: its notes are those of the last slab."""
        self.cautions += filter(None, [getattr(self.inferer, "notes", {}).get("warning")])

    def notes(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What the inferer decided of the scan just segmented, and what is odd about the scan, as ``warning``."""
        if is_idle(data):
            return self.warned(data)
        several = {"slabs": self._slabs} if self._slabs > 1 else {}
        noted = {key: value for key, value in getattr(self.inferer, "notes", {}).items() if key != "warning"}
        return noted | several | with_cautions(self.warned(data), self.cautions)

    def warned(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What reading and preprocessing found odd about a scan (``warnings`` of its metadata), in one text, and
        ``missing_channels``."""
        found = ["the region of interest is empty: everything is background"] if is_idle(data) else []
        for own in data.get("members", [data]):
            found += str(own["image"].meta.get(WARNINGS, "")).splitlines()
        shape, affine = native_grid(data.get("members", [data])[0]["image"])
        by_slices, seen = self.config.get("slice_axis") is not None, self.config.get("spacing_seen_mm")
        found.append("" if by_slices else lone_slice(shape))
        if seen and self.config["spacing"] is None:
            found.append(unlike_spacing(affine, seen, slices=by_slices))
        lacks = str(data["image"].meta.get(MISSING, "")).splitlines()
        found.append(told_missing(lacks) if lacks else "")
        told: dict[str, Any] = {MISSING: lacks} if lacks else {}
        return told | ({"warning": "; ".join(dict.fromkeys(filter(None, found)))} if any(found) else {})

    @contextmanager
    def _shown_to(self, watch: Watch | None, image: MetaTensor) -> Iterator[NativeWatch | None]:
        """Show the class probabilities to ``watch``: tile by tile, or on the way back where the scan was resampled."""
        if watch is None:
            yield None
            return
        shape, affine = native_grid(image)
        lattice = find_lattice(np.asarray(image.affine), affine)
        shown = NativeWatch(watch, self.inferer.log_probabilities, shape, lattice)
        shown.begin()
        try:
            self.inferer.watch, self.to_native.watch = shown, shown.native
            yield shown
        finally:
            self.inferer.watch = self.to_native.watch = None

    def __call__(
        self, items: Iterable[Mapping[str, Any]], watch: Callable[[Mapping[str, Any]], Watch | None] | None = None
    ) -> Iterator[Segmentation]:
        """Segment scans one after the other, the next being read while this one is computed.

        A scan that cannot be read or segmented gives its reason and stops nothing.

        Args:
            items: entries of a data list, asked for in the reading thread, one ahead; it may wait for the next one.
            watch: makes of an item who is shown its class probabilities; it is in the result.
        """
        source, pool = iter(items), ThreadPoolExecutor(1)
        try:
            upcoming = [pool.submit(self._next, source)]
            precision = getattr(self.inferer, "precision", None)
            if self.device.type == "cpu" and (precision is None or precision.dtype == torch.float32):
                load_kernels()  # while the first scan is read
            while True:
                item, read = upcoming.pop().result()
                if item is None:
                    return
                began = time.monotonic()

                def read_on() -> None:
                    if not upcoming:
                        upcoming.append(pool.submit(self._next, source))

                found = self._tried(item, read, read_on, watch)
                del read
                if found is None:  # memory was short: once more, with nothing beside
                    # Their data have no name here, and go.
                    follower = [after for one in upcoming if (after := one.result()[0]) is not None]
                    upcoming.clear()
                    release_memory(self.device)
                    found = self._tried(item, [partial(self.read, item)], lambda: None, watch, last=True)
                    release_memory(self.device)
                    if follower:
                        upcoming.append(pool.submit(self._next, iter(follower)))
                read_on()
                assert found is not None
                found.seconds = time.monotonic() - began
                yield found
                del found
        finally:  # without waiting: where this is interrupted, the next item may be long in coming
            pool.shutdown(wait=False, cancel_futures=True)

    def _next(self, source: Iterator[Mapping[str, Any]]) -> tuple[dict[str, Any] | None, list[Callable[[], Any]]]:
        """The next item, and in a list what gives its data once, or raises what was wrong; None where there is none."""
        item = next(source, None)
        if item is None:
            return None, []
        try:
            data = [self._ready(self.read(item))]
            return dict(item), [data.pop]
        except BaseException as error:
            return dict(item), [partial(_raise, error)]

    def _ready(self, data: dict[str, Any]) -> dict[str, Any]:
        """A scan that was read ahead; for a GPU in pinned memory, so that sending it takes the computing no time."""
        if self.device.type == "cuda":
            runs = data.get("members", [data])
            for own in runs:
                own["image"] = in_pinned_memory(own["image"])
            data["image"] = runs[0]["image"]
        return data

    def _tried(
        self,
        item: dict[str, Any],
        data_of: list[Callable[[], dict[str, Any]]],
        read_on: Callable[[], None],
        watch: Callable[[Mapping[str, Any]], Watch | None] | None,
        *,
        last: bool = False,
    ) -> Segmentation | None:
        """What came of a scan; None where memory was short and it is not the last trial.

        Args:
            item: the scan.
            data_of: the one call in it gives the scan, preprocessed, and is taken out.
            read_on: is called when it has been read.
            watch: as in a call.
            last: lack of memory is a reason like others.
        """
        try:
            data = data_of.pop()()
            read_on()
            watching = watch(item) if watch is not None else None
            labels, raw = self._both(data, watching)
            return Segmentation(item, labels, "", 0.0, self.notes(data), raw, watching, native_grid(data["image"]))
        except Exception as error:  # whatever is wrong with one scan must not stop the others
            short = is_out_of_memory(error)
            if short and not last:
                return None
            return Segmentation(item, None, f"memory ran out: {reason_of(error)}" if short else reason_of(error))


def with_cautions(told: Mapping[str, Any], cautions: Iterable[str]) -> dict[str, Any]:
    """What is told of a scan, with an inferer's warnings too.

    >>> with_cautions({"warning": "a"}, ["b", "b"])
    {'warning': 'a; b'}
    """
    texts = dict.fromkeys(filter(None, [told.get("warning", ""), *cautions]))
    return dict(told) | ({"warning": "; ".join(texts)} if texts else {})


def _raise(error: BaseException) -> Any:
    raise error
