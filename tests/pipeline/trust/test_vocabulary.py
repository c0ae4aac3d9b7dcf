"""What the packaged configurations say, read by the fast reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.trust import vocabulary


@pytest.mark.parametrize("file", sorted(vocabulary.CONFIGS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_files_are_read_as_those_from_elsewhere(file: Path) -> None:
    assert vocabulary._read(file) == read_yaml(file)
