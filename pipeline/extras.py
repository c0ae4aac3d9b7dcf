"""What rarevox does with packages that it does without otherwise: the extras, and how they are installed."""

from __future__ import annotations

import importlib.util

EXTRAS = {
    "serve": ("rarevox serve", ("starlette", "uvicorn")),
    "dicom": ("DICOM segmentations, reports and choice of series", ("highdicom", "pydicom")),
    "export": ("ONNX", ("onnx", "onnxruntime", "onnxscript")),
    "ray": ("--engine ray", ("ray",)),
    "centreline": ("centreline Dice", ("skimage",)),
    "mlflow": ("tracking in MLflow", ("mlflow",)),
    "demo": ("rarevox demo", ("nilearn",)),
}
"""Each extra: what it is for, and the modules that it takes."""


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed; none of them is imported."""
    return [name for name in EXTRAS[extra][1] if importlib.util.find_spec(name) is None]


def install(*extras: str) -> str:
    """How extras are installed.

    >>> install("dicom")
    "pip install --constraint constraints.txt --editable '.[dicom]' in the checkout of rarevox"
    """
    return f"pip install --constraint constraints.txt --editable '.[{','.join(extras)}]' in the checkout of rarevox"
