"""A network written as ONNX, as a program of torch.export or as TorchScript, and each read back to be run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.extras import install, missing

Program = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, C, *spatial) to logits."""
FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".ts"}
"""The name of each format and the suffix of its files."""
IMAGE, LOGITS, ABOUT = "image", "logits", "rarevox.json"
"""Names of the input, of the output and of the description inside the files."""


def require_packages(formats: list[str]) -> None:
    """Refuse ONNX where its packages are not installed."""
    lacking = missing("export") if "onnx" in formats else []
    if lacking:
        raise RequestError(
            f"ONNX needs {', '.join(lacking)}, not installed here: {install('export')}, or take --format pt2"
        )


def write(network: nn.Module, example: torch.Tensor, file: Path, kind: str, about: Mapping[str, Any]) -> None:
    """Write ``network``, in evaluation, for images of any batch and size.

    Args:
        network: with one input (B, C, *spatial).
        example: two samples or more, two voxels or more along every axis of the output: one is special to exporters.
        file: where to.
        kind: of `FORMATS`.
        about: what the file says of itself.
    """
    text = json.dumps(about)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporters
        if kind == "torchscript":
            traced = torch.jit.trace(network, example, check_trace=False)
            torch.jit.save(traced, str(file), _extra_files={ABOUT: text})
            return
        sizes = dict.fromkeys([0, *range(2, example.ndim)], torch.export.Dim.DYNAMIC)
        program = torch.export.export(network, (example,), dynamic_shapes=(sizes,))
        if kind == "pt2":
            torch.export.save(program, file, extra_files={ABOUT: text})
            return
        onnx = torch.onnx.export(program, input_names=[IMAGE], output_names=[LOGITS], dynamo=True, verbose=False)
        assert onnx is not None
        onnx.model.metadata_props["rarevox"] = text
        onnx.save(str(file), external_data=False)


def read(file: Path, kind: str) -> Program:
    """The program of a file, as the runtime runs it, on the CPU."""
    if kind == "torchscript":
        return torch.jit.load(str(file), map_location="cpu")
    if kind == "pt2":
        return torch.export.load(file).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {IMAGE: x.numpy()})[0])


def opset_of(file: Path) -> int:
    """The version of ONNX's operators that a file needs."""
    import onnx

    return int(
        next(entry.version for entry in onnx.load(file, load_external_data=False).opset_import if not entry.domain)
    )
