"""What libraries log and warn of."""

from __future__ import annotations

import pytest

from tests import forked

VISIBLY = """
from rarevox.pipeline.logs import show_logs_visibly
show_logs_visibly()
"""
SCRIPT = """
from monai.transforms import LoadImaged
LoadImaged(["image"])
import warnings
warnings.warn("a name with \\x1b[31m in it")
"""


def test_that_a_decoder_is_not_installed_is_no_news():
    """MONAI says so each time that something is made that reads, as soon as pydicom is installed."""
    pytest.importorskip("pydicom")
    plain, done = (forked.run(["-c", script]) for script in (SCRIPT, VISIBLY + SCRIPT))
    assert plain.returncode == done.returncode == 0, plain.stderr + done.stderr
    if "NvImgCodec" not in plain.stderr:
        pytest.skip("MONAI has its decoder here, or says nothing of it any more")
    assert "nvImageCodec" not in done.stderr and "NvImgCodec" not in done.stderr
    assert "a name with" in done.stderr and "\x1b" not in done.stderr
