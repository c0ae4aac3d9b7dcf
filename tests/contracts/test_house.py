"""The checker of imports finds what it is there to find, on small made-up houses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.house import (
    Arrow,
    arrows,
    circles,
    file_circles,
    misspelt,
    modules,
    places,
    read_orders,
    room_circles,
    upward,
)

PAGE = """
The order.

```text
order of rarevox.shop
till
goods/ | price
*
```

```python
import this
```
"""
ORDER = [[["till"]], [["goods/"], ["price"]], [["*"]]]


def house(root: Path, **files: str) -> dict[str, Path]:
    """The modules of a tree ``shop`` with these texts: ``goods__tea`` is ``shop/goods/tea.py``; rooms have faces."""
    for name, text in files.items():
        path = root / "shop" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for room in {path.parent, root / "shop"}:
            (room / "__init__.py").touch()
    return modules(root, ["shop"])


def pairs(found: list[Arrow]) -> set[tuple[str, str]]:
    return {(a.source.removeprefix("rarevox.shop."), a.target.removeprefix("rarevox.shop.")) for a in found}


def test_modules_carry_the_projects_name(tmp_path: Path) -> None:
    assert set(house(tmp_path, till="", goods__tea="")) == {
        "rarevox.shop",
        "rarevox.shop.till",
        "rarevox.shop.goods",
        "rarevox.shop.goods.tea",
    }


@pytest.mark.parametrize(
    "text",
    [
        "import rarevox.shop.goods.tea",
        "from rarevox.shop.goods import tea",
        "from rarevox.shop.goods.tea import LEAVES",
        "from rarevox.shop.goods.tea import *",
        "def brew():\n    from rarevox.shop.goods import tea",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rarevox.shop.goods.tea import Leaf",
        "compiled_module('rarevox.shop.goods.tea')",
    ],
)
def test_an_import_is_found_however_it_is_written(tmp_path: Path, text: str) -> None:
    assert pairs(arrows(house(tmp_path, till=text, goods__tea=""))) == {("till", "goods.tea")}


def test_what_is_only_spoken_of_is_no_import(tmp_path: Path) -> None:
    text = '"""See :mod:`rarevox.shop.goods.tea`."""\nimport os\nfrom json import load'
    assert arrows(house(tmp_path, till=text, goods__tea="")) == []


@pytest.mark.parametrize(
    "text", ["import shop", "from shop.goods import tea", "from . import price", "from .goods.tea import LEAVES"]
)
def test_an_import_of_ours_under_another_name_is_found(tmp_path: Path, text: str) -> None:
    assert len(misspelt(house(tmp_path, till=text), ["shop"])) == 1


def test_imports_of_others_and_by_the_full_name_are_spelled_right(tmp_path: Path) -> None:
    text = "import shopping\nimport rarevox.shop\nfrom rarevox.shop import price\nfrom os.path import shop"
    assert misspelt(house(tmp_path, till=text, price=""), ["shop"]) == []


def test_orders_are_read_from_their_blocks_alone() -> None:
    assert read_orders(PAGE) == {"rarevox.shop": ORDER}


def test_every_child_has_its_floor_and_the_rest_the_star(tmp_path: Path) -> None:
    files = house(tmp_path, till="", price="", goods__tea="", errors="", words="")
    found, wrong = places("rarevox.shop", ORDER, files)
    assert found == {"till": (0, 0), "goods": (1, 0), "price": (1, 1), "errors": (2, 0), "words": (2, 0)}
    assert wrong == []


def test_children_without_a_floor_and_floors_without_a_child_are_told(tmp_path: Path) -> None:
    files = house(tmp_path, till="", goods__tea="", errors="")
    _, wrong = places("rarevox.shop", [[["till"]], [["goods"]], [["price"]]], files)
    assert sorted(wrong) == [
        "rarevox.shop: errors has no floor",
        "rarevox.shop: goods/ has no floor",
        "rarevox.shop: the order names goods, which is not there",
        "rarevox.shop: the order names price, which is not there",
    ]


def test_a_child_on_two_floors_is_told(tmp_path: Path) -> None:
    _, wrong = places("rarevox.shop", [[["till"]], [["till"]]], house(tmp_path, till=""))
    assert wrong == ["rarevox.shop: the order names a child twice"]


def test_imports_of_lower_floors_and_of_one_group_are_allowed(tmp_path: Path) -> None:
    files = house(
        tmp_path,
        till="from rarevox.shop import price, words\nfrom rarevox.shop.goods import tea",
        goods__tea="from rarevox.shop import words",
        price="import rarevox.shop.words",
        words="from rarevox.shop import errors",
        errors="",
    )
    assert upward("rarevox.shop", places("rarevox.shop", ORDER, files)[0], arrows(files)) == []


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        ("price", "import rarevox.shop.till", "higher up"),
        ("words", "from rarevox.shop.goods.tea import LEAVES", "higher up"),
        ("price", "from rarevox.shop.goods import tea", "side by side"),
        ("goods__tea", "from rarevox.shop import price", "side by side"),
        ("goods__tea", "from rarevox.shop import Anything", "the face of its own room"),
    ],
)
def test_imports_that_climb_are_found(tmp_path: Path, place: str, text: str, said: str) -> None:
    files = house(tmp_path, **({"till": "", "price": "", "goods__tea": "", "words": ""} | {place: text}))
    found = upward("rarevox.shop", places("rarevox.shop", ORDER, files)[0], arrows(files))
    assert len(found) == 1
    assert said in found[0]
    assert "shop.{}:1 imports".format(place.replace("__", ".")) in found[0]


def test_circles_are_groups_that_reach_one_another() -> None:
    graph = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": {"b"}, "e": {"f"}, "f": {"g"}, "g": {"e", "a"}}
    assert circles(graph) == [["b", "d"], ["e", "f", "g"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_circle_of_files_is_found_in_functions_too(tmp_path: Path) -> None:
    late = "def f():\n    from rarevox.shop import till"
    files = house(tmp_path, till="import rarevox.shop.price", price="import rarevox.shop.words", words=late)
    assert file_circles(arrows(files)) == [["rarevox.shop.price", "rarevox.shop.till", "rarevox.shop.words"]]


def test_a_circle_of_rooms_is_found_where_no_files_close_one(tmp_path: Path) -> None:
    files = house(
        tmp_path,
        goods__tea="from rarevox.shop.staff import clerk",
        staff__clerk="",
        staff__baker="from rarevox.shop.goods import bread",
        goods__bread="",
    )
    assert file_circles(arrows(files)) == []
    assert room_circles(files, arrows(files)) == ["rarevox.shop: goods ↔ staff"]


def test_the_files_of_a_room_stand_apart_above_and_below_the_rooms_in_it(tmp_path: Path) -> None:
    files = house(tmp_path, till="import rarevox.shop.goods.tea", goods__tea="import rarevox.shop.words", words="")
    assert room_circles(files, arrows(files)) == []
