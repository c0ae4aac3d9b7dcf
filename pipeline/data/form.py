"""The form of a dataset's files as prepare writes them: which key holds what, said where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.names import shown


class Kind(NamedTuple):
    """What a key holds: a test of it, the words for it, and whether it may be absent or null."""

    fits: Callable[[Any], bool]
    words: str
    optional: bool = False


def is_text(value: object) -> bool:
    """A text that can be a file's name."""
    return isinstance(value, str) and "\0" not in value


def is_whole(value: object) -> bool:
    """A whole number from 0 that every library takes."""
    return type(value) is int and 0 <= value < 2**63


def are_files(value: object) -> bool:
    """The name of a file, or a list of such names."""
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


CASES = Kind(lambda value: isinstance(value, list) and all(isinstance(row, dict) for row in value), "a list of cases")

KEYS = {
    "root": Kind(is_text, "a folder"),
    "channels": Kind(lambda v: isinstance(v, list) and bool(v) and all(map(is_text, v)), "a list of names"),
    "labels": Kind(lambda value: isinstance(value, dict), "names with their values"),
    "training": CASES,
    "test": CASES,
    "folds": Kind(lambda value: is_whole(value) and value >= 1, "a whole number from 1"),
    "seed": Kind(is_whole, "a whole number from 0", True),
    "holdout": Kind(lambda value: isinstance(value, (int, float)) and 0 <= value <= 1, "a share from 0 to 1", True),
    "fingerprint": Kind(is_text, "a text", True),
    "name": Kind(is_text, "a text", True),
    "n4": Kind(lambda value: isinstance(value, bool), "true or false", True),
    "structure_codes": Kind(lambda value: isinstance(value, dict), "names of structures with their codes", True),
}

CASE_KEYS = {
    "case": Kind(is_text, "a name"),
    "image": Kind(are_files, "the name of a file, or a list of such names"),
    "label": Kind(is_text, "the name of a file"),
    "mask": Kind(is_text, "the name of a file", True),
    "subject": Kind(is_text, "a name", True),
}
FOLD = Kind(is_whole, "a whole number from 0")


def _three(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) == 3 and all(map(fits, value))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


FINGERPRINT_ROW = {
    "orientation": Kind(lambda value: is_text(value) and len(value) == 3, "three letters, such as RAS"),
    "size": Kind(_three(lambda n: is_whole(n) and n > 0), "voxels along three axes"),
    "spacing_mm": Kind(_three(lambda mm: _number(mm) and 0 < mm < float("inf")), "millimetres along three axes"),
    "right_mm": Kind(lambda v: isinstance(v, dict) and all(map(_number, v.values())), "millimetres by label", True),
}


def fingerprint_rows(dataset: Path) -> list[dict[str, Any]]:
    """The rows by case of the ``fingerprint.json`` beside a ``dataset.json``; none where there is no such file.

    Raises:
        RequestError: not JSON, or another form; names the row and the key.
    """
    path = dataset.parent / "fingerprint.json"
    if not path.is_file():
        return []
    content = read_json(path)
    rows: Any = content.get("per_case", []) if isinstance(content, dict) else None
    if not CASES.fits(rows):
        raise RequestError(f'{path} has no list "per_case", as rarevox prepare writes it; prepare again')
    for number, row in enumerate(rows):
        check_keys(row, FINGERPRINT_ROW, f'"per_case"[{number}] of {path}')
    return list(rows)


def check_form(content: object, file: Path) -> None:
    """Refuse what is not the content of a prepared ``dataset.json``.

    Raises:
        RequestError: names the key, what it holds and what was expected.
    """
    if not isinstance(content, dict):
        raise RequestError(
            f"{file} was not written by rarevox prepare (it holds no keys, but {shown(content)}); run: rarevox prepare"
        )
    lacks = sorted(key for key, kind in KEYS.items() if not kind.optional and key not in content)
    if lacks:
        raise RequestError(
            f"{file} was not written by rarevox prepare (it lacks {', '.join(lacks)}); run: rarevox prepare"
        )
    check_keys(content, KEYS, str(file))


def check_case(case: dict[str, Any], where: str, *, fold: bool) -> None:
    """Refuse an entry of ``training`` or ``test`` without the names of its files, or of ``training`` without a fold.

    Raises:
        RequestError: says where, which key, and what was expected.
    """
    kinds = CASE_KEYS | ({"fold": FOLD} if fold else {})
    lacks = sorted(key for key, kind in kinds.items() if not kind.optional and key not in case)
    if lacks:
        raise RequestError(f"{where} lacks {', '.join(lacks)}; run rarevox prepare again")
    check_keys(case, kinds, where)


def check_keys(content: dict[str, Any], kinds: dict[str, Kind], where: str) -> None:
    """Refuse a mapping in which a key holds something of another kind.

    Raises:
        RequestError: names the key, what it holds and what was expected.
    """
    for key, kind in kinds.items():
        value = content.get(key)
        if not (kind.optional and value is None) and not kind.fits(value):
            raise RequestError(f'"{key}" in {where} is {shown(value)}; expected {kind.words}')
