"""`rarevox export`: write a run's network for other runtimes, run each file once, and say what it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rarevox.networks.geometry import Geometry
from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import require_run, target_name, version
from rarevox.pipeline.compose import put
from rarevox.pipeline.console import console
from rarevox.pipeline.data.missing import optional_channels
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.export.programs import FORMATS, opset_of, read, require_packages, write
from rarevox.pipeline.figures import rules_text
from rarevox.pipeline.files import write_json
from rarevox.pipeline.inference.brought_up import brought_up
from rarevox.pipeline.training.kept.checkpoint import load_weights
from rarevox.pipeline.trust.gate import run_config

TOLERANCE = 1e-4
"""The largest difference of logits from the network's own, for logits up to 1; in proportion beyond."""
_INPUT = "float32 (batch, channels, *spatial), normalised; *spatial are the axes of "
_SLICES = ", the one across the slices moved to the end: "
_AUTO = "of the resampled scan that of the largest spacing, and the last where none is over 1 % larger than it"
_CLASSES = "classes, *spatial - 2 * margin); the class is the largest"
_REGIONS = "regions, *spatial - 2 * margin); the label is how many nested regions in a row have logits above 0"
_WITH_POINTS = (
    " after temperature * ln((1 - t) / t) is added to each{}, t the threshold of operating_points and 0.5 where there "
    "is none"
)
LEAST = 16
"""Voxels along each axis of the images that files are run on, at least."""


def export(run: str | Path, output: str | Path, formats: Sequence[str] = (), *, trust: bool = False) -> int:
    """Write the network of ``run`` in each of ``formats`` and check the files at three sizes.

    Args:
        run: a run folder.
        output: a folder for ``model.onnx``, ``model.pt2``, ``model.ts`` and ``export.json``; or one file, whose suffix
            says the format.
        formats: of `FORMATS`; all if none is named.
        trust: take the run's configuration whatever it builds; see `rarevox.pipeline.trust.gate`.

    Raises:
        RequestError: no run, no weights, a missing package, a network that cannot be exported, or numbers that differ.
    """
    output = Path(output)
    by_suffix = {suffix: kind for kind, suffix in FORMATS.items()}
    single = by_suffix.get(output.suffix)
    if single and formats and list(formats) != [single]:
        raise RequestError(
            f"--output {output} is a file of format {single}, and --format asks for {', '.join(formats)}"
        )
    kinds = [single] if single else list(dict.fromkeys(formats)) or list(FORMATS)
    require_packages(kinds)
    folder = output.parent if single else output
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is no folder; give --output a folder, or a file ending in {', '.join(by_suffix)}")
    network, geometry, about = load(run, trust=trust)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind in kinds:
        file = output if single else folder / f"model{FORMATS[kind]}"
        found[file.name] = _written(network, geometry, file, kind, about)
        console.print(f"{file}: largest difference of logits {found[file.name]['largest_difference']:.1e}")
    if about["operating_points"]:
        console.print(
            f"the run has operating points ({rules_text(about['operating_points'])}), by which its labels begin; they "
            "are no part of the network, and stand with the rule in the JSON",
            soft_wrap=True,
        )
    if about["scan_statistics"]:
        console.print(
            f"scan_statistics is {about['scan_statistics']:g}: rarevox predict moves batch norms for each scan, the "
            "exported network does not; hold its labels against rarevox predict --set scan_statistics=0",
            soft_wrap=True,
        )
    write_json(output.with_suffix(".json") if single else folder / "export.json", about | {"files": found})
    return 0


def load(run: str | Path, *, trust: bool = False) -> tuple[nn.Module, Geometry, dict[str, Any]]:
    """The network of a run in evaluation on the CPU, its geometry, and what a runtime must know to feed it."""
    run = require_run(run, "inference")
    config = brought_up(run_config(run, "inference", trust=trust), run)
    config["bundle_root"] = str(run.resolve())
    put(config, "device#name", "cpu")
    wanted = {key: f"@{key}" for key in ("geometry", "weights", "inferer", "in_channels")} | {"network": "@network_def"}
    built = build(config | {"_exported": wanted}, "_exported")
    network, geometry = load_weights(built["network"], built["weights"]), built["geometry"]
    regions = config.get("regions") or {}
    # A structure of null, or of nothing, has none.
    points = {name: dict(point) for name, point in (config.get("operating_points") or {}).items() if point}
    orientation, slices = _orientation(config.get("preprocessing")), config.get("slice_axis")
    rule = _WITH_POINTS.format("" if regions else " but the background's")
    about = {
        "network": target_name(config["network_def"]),
        "input": _input(orientation, slices),
        "output": f"float32 linear logits (batch, {_REGIONS if regions else _CLASSES}{rule if points else ''}",
        "channels": list(config["channels"]),
        "in_channels": int(built["in_channels"]),  # more where the normalisation makes several of one
        # 0 after normalisation where a scan lacks one.
        "optional_channels": optional_channels(config),
        "classes": ["background", *config["structures"]],
        **({"regions": dict(regions)} if regions else {}),
        "label_values": list(config["label_values"]),
        # What is done to a scan, in this order; entries that an earlier version did not know do nothing.
        "fill_surround": bool(config.get("fill_surround", False)),
        "n4": bool(config.get("n4", False)),
        "orientation": orientation,
        "spacing_mm": config["spacing"],
        "slice_axis": slices,
        "crop_to_content": bool(config.get("crop_to_content", False)),
        "normalisation": config["normalisation"],
        "geometry": {name: list(getattr(geometry, name)) for name in ("minimum", "multiple", "base", "margin")}
        # What rarevox's own inferer does, which may be set apart from the training.
        | {"loss_margin": list(getattr(built["inferer"], "surround", (0,) * geometry.spatial_dims))},
        "scan_statistics": _share(built["inferer"]),
        "operating_points": points,
        "temperature": float(config.get("temperature", 1.0)),
        "versions": {name: version(name) for name in ("rarevox", "torch")},
    }
    return network, geometry, about


def _orientation(preprocessing: object) -> str | None:
    """Where the axes run to after the steps of a preprocessing; None where it leaves them as the scan has them.

    >>> _orientation({"transforms": [{"_target_": "LoadImaged"}, {"_target_": "Orientationd", "axcodes": "RAS"}]})
    'RAS'
    """
    steps = preprocessing.get("transforms") if isinstance(preprocessing, Mapping) else None
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, Mapping) and str(step.get("_target_")).rsplit(".", 1)[-1] == "Orientationd":
            return "".join(step.get("axcodes") or "RAS")  # without any it is asked for the closest to RAS
    return None


def _input(orientation: str | None, slices: str | None) -> str:
    """What a program takes, in words.

    >>> _input("RAS", "axial").partition("; ")[2]
    '*spatial are the axes of orientation, the one across the slices moved to the end: axial'
    """
    across = "" if slices is None else _SLICES + (f"auto, {_AUTO}" if slices == "auto" else slices)
    return _INPUT + ("the scan" if orientation is None else "orientation") + across


def _share(inferer: object) -> float:
    """By how much an inferer moves batch norms; 0 without anything to compare a scan with."""
    statistics = getattr(inferer, "statistics", None)
    return 0.0 if statistics is None or not statistics.reference else float(statistics.share)


def images(geometry: Geometry, channels: int) -> list[torch.Tensor]:
    """Normal noise of four different sizes that the network takes: the one that is exported, and three for checks."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for step, batch in enumerate((2, 1, 1, 2)):
        more = [(1 + (step + axis) % 4) * multiple for axis, multiple in enumerate(geometry.multiple)]
        least = [max(n, LEAST) for n in geometry.minimum]
        size = geometry.input_size([n - 2 * m + k for n, m, k in zip(least, geometry.margin, more, strict=True)])
        found.append(torch.randn(batch, channels, *size, generator=generator))
    return found


def _written(network: nn.Module, geometry: Geometry, file: Path, kind: str, about: dict[str, Any]) -> dict[str, Any]:
    """Write a file under a name of its own, run it, and put it in place if its numbers are the network's."""
    example, *others = images(geometry, about["in_channels"])
    part = file.with_name(f".{os.getpid()}{FORMATS[kind]}")
    try:
        try:
            write(network, example, part, kind, about)
            differences = _differences(network, part, kind, others)
        except (OSError, RequestError):
            raise
        except Exception as error:  # exporters and runtimes raise what they like
            name = about["network"]
            raise RequestError(
                f"{name} cannot be written as {kind}: {reason_of(error)}; try another --format"
            ) from error
        told = {"format": kind, "checked_sizes": [list(x.shape) for x in others], "largest_difference": differences}
        if kind == "onnx":
            told["opset"] = opset_of(part)
        part.replace(file)
        return told
    finally:
        part.unlink(missing_ok=True)


def _differences(network: nn.Module, file: Path, kind: str, inputs: Sequence[torch.Tensor]) -> float:
    """The largest difference between the logits of a file and those of the network.

    Raises:
        RequestError: it is larger than rounding can make it.
    """
    program, largest = read(file, kind), 0.0
    for x in inputs:
        with torch.no_grad():
            expected, found = network(x), program(x)
        if found.shape != expected.shape:
            raise RequestError(
                f"the {kind} file gives {tuple(found.shape)} for {tuple(x.shape)}, the network gives "
                f"{tuple(expected.shape)}; nothing was written"
            )
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise RequestError(
                f"the logits of the {kind} file differ from the network's by {difference:.1e} at size "
                f"{tuple(x.shape)}; nothing was written"
            )
        largest = max(largest, difference)
    return largest
