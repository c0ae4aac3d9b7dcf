"""What libraries log and warn of, shown as visible text; apart from `words`, since help needs no logging."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from rarevox.pipeline.words import visible


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


_formatwarning = warnings.formatwarning


def _format_visibly(*said: Any, **more: Any) -> str:
    return visible(_formatwarning(*said, **more))


def show_logs_visibly() -> None:
    """Have what libraries warn of and log, which may hold names of files, reach the terminal as visible text."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_VisibleFormatter())
    warnings.formatwarning = _format_visibly
    # With pydicom installed MONAI tells each time a transform that reads is made that a decoder of NVIDIA's is not.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    # The exporter to ONNX tells of operations of torchvision's, which no network here has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    # What nibabel mends in a header it tells of no file; `rarevox.transforms.reader` judges headers and names files.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
