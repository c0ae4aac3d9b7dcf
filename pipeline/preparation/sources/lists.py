"""Sources that list their cases in a file: Decathlon and nnU-Net ``dataset.json``, CSV and JSON tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.composites import Composites, labels_and_unions
from rarevox.pipeline.data.form import Kind, are_files, check_keys, is_text
from rarevox.pipeline.data.formats import stem
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.names import shown
from rarevox.pipeline.plain_data import LARGEST_JSON, read_text
from rarevox.pipeline.preparation.cases import Case, Fault, Source, named_subject
from rarevox.pipeline.preparation.checks.catalogue import fault
from rarevox.pipeline.preparation.sources.pairs import pair_folders
from rarevox.pipeline.preparation.stated_split import read_part


def _indexed(value: object) -> bool:
    return isinstance(value, dict) and all(key.isdecimal() and is_text(name) for key, name in value.items())


_CHANNELS = Kind(_indexed, 'names by number, such as {"0": "FLAIR"}', True)
_KEYS = {
    "name": Kind(is_text, "a text", True),
    "channel_names": _CHANNELS,
    "modality": _CHANNELS,
    "training": Kind(lambda value: isinstance(value, list), "a list of cases", True),
}
_NNUNET_CASE = {"images": Kind(are_files, "a list of files"), "label": Kind(is_text, "the name of a file")}
_DECATHLON_CASE = {"image": Kind(are_files, "a file or a list of files"), "label": Kind(is_text, "the name of a file")}


_MORE = "\0"
"""The key of cells beyond the heading; no column is called so."""


def read_dataset_json(folder: Path, subject: str | None = None) -> Source:
    """A Medical Segmentation Decathlon task folder, or an nnU-Net raw folder, from its ``dataset.json``.

    Decathlon names files in ``training`` and labels as ``{"1": "Liver"}``; nnU-Net (version 2) has ``channel_names``,
    labels as ``{"liver": 1}``, and one file per channel with the suffix ``_0000``, or names the files of each case in
    ``dataset`` (``{"case": {"images": [...], "label": ...}}``). Its regions (``{"whole": [1, 2]}``)
    become composites. Its label ``ignore``, the highest value, marks voxels that nobody annotated and is no structure.

    Raises:
        RequestError: not one of the two, labels of another form, or files named outside any known form.
    """
    file = folder / "dataset.json"
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise RequestError(f'{file} has no "labels"; expected a Decathlon or nnU-Net dataset.json')
    if isinstance(content.get("fingerprint"), str) and "root" in content:
        raise RequestError(
            f"{folder} is a dataset that rarevox prepare wrote: train on it, or give what it was prepared from, "
            f"{(folder / str(content['root'])).resolve()}"
        )
    check_keys(content, _KEYS, str(file))
    names = content.get("channel_names") or content.get("modality") or {"0": "image"}
    channels = tuple(str(names[key]) for key in sorted(names, key=int))
    if len(set(channels)) < len(channels):  # two sequences of the same modality
        channels = tuple(f"{name}_{number}" for number, name in enumerate(channels))
    ignored, declared = _ignored(content["labels"], file)
    labels, composites = _named_labels(declared, file)
    cases: tuple[Case, ...]
    faults: tuple[Fault, ...] = ()
    rule: tuple[str | int, ...] | None = None
    if isinstance(content.get("dataset"), dict):
        kind = "nnU-Net raw folder"
        cases = tuple(_nnunet_case(folder, name, entry, file, subject) for name, entry in content["dataset"].items())
    elif "channel_names" in content or not content.get("training"):
        numbers = sorted(map(int, names))
        found = pair_folders(folder, folder / "imagesTr", folder / "labelsTr", subject=subject, numbers=numbers)
        kind = "nnU-Net raw folder" if "channel_names" in content else "Decathlon folder without a training list"
        cases, faults, rule = found.cases, found.faults, found.channel_files
    else:
        kind = "Medical Segmentation Decathlon task"
        cases = tuple(_decathlon_case(folder, entry, file, subject) for entry in content["training"])
    name = content.get("name") or folder.name
    return Source(name, folder, channels, labels, cases, faults, kind, composites, ignored, rule)


def _ignored(labels: dict[str, Any], file: Path) -> tuple[int | None, dict[str, Any]]:
    """The value of nnU-Net's label ``ignore``, if it is declared, and the labels without it.

    Decathlon's spelling (``{"3": "ignore"}``) has no such convention: there it is a name like others.
    """
    if "ignore" not in labels:
        return None, labels
    value, others = labels["ignore"], {name: number for name, number in labels.items() if name != "ignore"}
    known = [one for number in others.values() for one in (number if isinstance(number, (list, tuple)) else [number])]
    if type(value) is not int or not all(type(one) is int and one < value for one in known):
        raise RequestError(
            f'label "ignore" in {file} is {value!r}; as nnU-Net\'s mark of voxels that nobody annotated it has the '
            "highest value of all; correct it, or give a structure of that name another one"
        )
    return value, others


def _nnunet_case(folder: Path, name: str, entry: object, file: Path, subject: str | None) -> Case:
    if not isinstance(entry, dict) or not isinstance(entry.get("images"), list) or "label" not in entry:
        raise RequestError(
            f'"dataset" in {file} must give {{"images": [...], "label": …}} for {name}; it holds {shown(entry)}'
        )
    check_keys(entry, _NNUNET_CASE, f"{name} in {file}")
    images = tuple(folder / image for image in entry["images"])
    return Case(name, images, folder / entry["label"], None, named_subject(name, subject))


def _decathlon_case(folder: Path, entry: object, file: Path, subject: str | None) -> Case:
    if not isinstance(entry, dict) or "image" not in entry or "label" not in entry:
        raise RequestError(f'"training" in {file} must list {{"image": …, "label": …}}; it holds {shown(entry)}')
    check_keys(entry, _DECATHLON_CASE, f'an entry of "training" in {file}')
    files = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    case = stem(Path(entry["label"]))
    return Case(
        case, tuple(folder / name for name in files), folder / entry["label"], None, named_subject(case, subject)
    )


def _named_labels(labels: dict[str, Any], file: Path) -> tuple[dict[str, int], Composites]:
    """Names to values without the background, from either spelling, and nnU-Net's regions as composites."""
    regions: dict[str, int | tuple[int, ...]] = {}
    for key, value in labels.items():
        name, number = (value, key) if str(key).lstrip("-").isdigit() else (key, value)
        if not isinstance(name, str):
            raise RequestError(f'"labels" in {file} gives {key!r} the name {shown(name)}; expected a text')
        try:
            values = tuple(int(one) for one in (number if isinstance(number, (list, tuple)) else [number]))
        except (TypeError, ValueError):
            raise RequestError(
                f"label {shown(name)} in {file} is {shown(number)}; expected a whole number or a list of them, or "
                "give the values with --structure NAME=VALUE"
            ) from None
        regions[str(name)] = values
    return labels_and_unions(regions)


def read_table(file: Path, subject: str | None = None) -> Source:
    """Cases from a CSV file with a header line, or from a JSON list of objects with the same keys.

    Columns: ``label`` (needed), ``case`` (else the label's name), ``subject``, ``mask``, ``split`` (``test``,
    ``training`` or the number of a fold); every other column is a channel, named by its heading, in order. File names
    are relative to the table's folder. An empty cell is a fault of that case.

    Raises:
        RequestError: no rows, no ``label`` or no channel column.
    """
    rows = _rows(file)
    fixed = ("case", "label", "subject", "mask", "split", _MORE)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    channels, stated = tuple(key for key in columns if key not in fixed), "split" in columns
    if "label" not in columns or not channels:
        raise RequestError(
            f"{file} has the columns {', '.join(columns)[:200]}; expected label and one column per channel, "
            "and perhaps case, subject, mask, split"
        )
    cases, faults = [], []
    for number, row in enumerate(rows, start=1):
        name = str(row.get("case") or stem(Path(str(row.get("label") or f"row_{number}"))))
        if row.get(_MORE):
            faults.append(fault(name, "missing-file", f"row {number} has more cells than there are columns", file))
            continue
        empty = [key for key in (*channels, "label") if not row.get(key)]
        if empty:
            faults.append(fault(name, "missing-file", f"row {number} names no {', '.join(empty)}", file))
            continue
        image = tuple(file.parent / row[key] for key in channels)
        mask = file.parent / row["mask"] if row.get("mask") else None
        who = str(row.get("subject") or named_subject(name, subject))
        part = read_part(str(row.get("split") or ""), f"row {number} of {file}") if stated else ""
        cases.append(Case(name, image, file.parent / row["label"], mask, who, part))
    known = None if channels == ("image",) else channels  # a single image column may hold 4D files
    return Source(file.stem, file.parent, known, None, tuple(cases), tuple(faults), "table of cases")


def _require_texts(rows: list[dict[str, Any]], file: Path) -> None:
    """Cells are texts, as those of a CSV file are; a number will do, and an empty cell is a fault of its case."""
    for number, row in enumerate(rows, start=1):
        for key, value in row.items():
            if value is not None and (not isinstance(value, (str, int)) or "\0" in str(value)):
                raise RequestError(f'row {number} of {file}: "{key}" is {shown(value)}; expected the name of a file')
            row[key] = value if value is None else str(value)


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix.lower() == ".json":
        content = read_json(file)
        content = content.get("training", content) if isinstance(content, dict) else content
        rows = content if isinstance(content, list) and all(isinstance(row, dict) for row in content) else []
        _require_texts(rows, file)
    else:
        lines = io.StringIO(read_text(file, LARGEST_JSON).removeprefix("\ufeff"), newline="")
        try:
            reader = csv.DictReader(lines, restkey=_MORE)
            rows, heading = list(reader), list(reader.fieldnames or ())
        except csv.Error as error:
            raise RequestError(f"{file} is no table that can be read: {error}") from error
        if twice := [name for name in heading if heading.count(name) > 1]:
            raise RequestError(f"{file} has the column {twice[0]!r} twice; give each column a name of its own")
    if not rows:
        raise RequestError(f"{file} lists no cases; expected a CSV file with a header, or a JSON list of objects")
    return rows
