"""A package's face imports a module when one of its names is asked for, and not before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rarevox.pipeline.faces import face


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules, one of which cannot be imported."""
    package = tmp_path / "shop_of_faces"
    package.mkdir()
    (package / "tea.py").write_text("LEAVES = ['green']\n")
    (package / "closed.py").write_text("import a_module_that_is_not_there\n")
    offers = {"tea": ["LEAVES", "TASTE"], "closed": ["DOOR"]}
    (package / "__init__.py").write_text(
        f"from rarevox.pipeline.faces import face\n__getattr__, __dir__, __all__ = face(__name__, {offers})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield package.name
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_a_name_comes_from_its_module_when_it_is_asked_for(shop: str) -> None:
    package = __import__(shop)
    assert f"{shop}.tea" not in sys.modules
    assert package.LEAVES is sys.modules[f"{shop}.tea"].LEAVES


def test_all_and_dir_list_the_names(shop: str) -> None:
    package = __import__(shop)
    assert package.__all__ == ["DOOR", "LEAVES", "TASTE"]
    assert {"DOOR", "LEAVES", "TASTE", "__name__", "face"} <= set(dir(package))


def test_other_names_are_absent(shop: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{shop}' has no attribute 'COFFEE'"):
        _ = __import__(shop).COFFEE
    with pytest.raises(AttributeError, match="TASTE"):
        _ = __import__(shop).TASTE
    with pytest.raises(ImportError, match=f"{shop}"):
        exec(f"from {shop} import COFFEE")


def test_what_a_module_lacks_is_told_as_it_is(shop: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        _ = __import__(shop).DOOR


def test_the_same_object_every_time() -> None:
    get, _, names = face("rarevox.pipeline", {"errors": ["RequestError"]})
    assert get("RequestError") is get("RequestError")
    assert names == ["RequestError"]
