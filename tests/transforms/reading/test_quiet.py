"""Silence that two threads share, and that ends with the last of them."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from rarevox.transforms.reading.quiet import quietly


def said(caplog: Any) -> bool:
    """Whether a warning and a log entry come through."""
    caplog.clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.warn("a name", stacklevel=1)
        logging.getLogger("pydicom").warning("a name")
        logging.getLogger("highdicom.base").error("a name")
    assert len(found) * 2 == len(caplog.records)
    return bool(found)


def test_silence_lasts_until_the_last_one_goes(caplog: Any) -> None:
    """In the order that a stack would not have: the first to come is the first to go."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = [logging.getLogger(name).level for name in ("pydicom", "highdicom")]
        assert said(caplog)
        first, second = quietly(), quietly()
        first.__enter__()
        assert not said(caplog)
        second.__enter__()
        first.__exit__(None, None, None)
        assert not said(caplog)
        second.__exit__(None, None, None)
        assert said(caplog)
        assert [logging.getLogger(name).level for name in ("pydicom", "highdicom")] == before
