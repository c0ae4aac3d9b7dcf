"""What libraries log and warn of."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from rarevox.pipeline.logs import show_logs_visibly
show_logs_visibly()
from monai.transforms import LoadImaged
LoadImaged(["image"])
import warnings
warnings.warn("a name with \\x1b[31m in it")
"""


def test_that_a_decoder_is_not_installed_is_no_news():
    """MONAI says so each time that something is made that reads, as soon as pydicom is installed."""
    pytest.importorskip("pydicom")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "nvImageCodec" not in done.stderr and "NvImgCodec" not in done.stderr
    assert "a name with" in done.stderr and "\x1b" not in done.stderr
