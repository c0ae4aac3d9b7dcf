from __future__ import annotations

import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from rarevox.pipeline.build import parsed
from rarevox.pipeline.errors import RequestError


@pytest.mark.parametrize(
    ("line", "expected"), [("raise KeyboardInterrupt", KeyboardInterrupt), ("1 / 0", RequestError)]
)
def test_an_interrupted_import_is_an_interruption_and_a_faulty_one_is_told(
    line: str, expected: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``pydoc.locate``, which finds what ``_target_`` names, makes one error of both."""
    (tmp_path / "imported_for_a_test.py").write_text(line)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(expected):
        parsed(ConfigParser({"part": {"_target_": "imported_for_a_test.Part"}}), "part")
    sys.modules.pop("imported_for_a_test", None)
