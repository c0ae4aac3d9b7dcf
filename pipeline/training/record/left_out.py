"""Cases that a training left out since they cannot be read: rows in the run's logs and in its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rarevox.pipeline.build import parsed
from rarevox.pipeline.bundle import CARD, LEFT_OUT, with_left_out
from rarevox.pipeline.files import write_json, write_text
from rarevox.pipeline.plain_data import LARGEST_YAML, read_text
from rarevox.pipeline.training import processes

Row = dict[str, str]


def left_out(parser: Any) -> list[Row]:
    """``{"case", "section", "reason"}`` of each case that could not be read, of all processes.

    Args:
        parser: MONAI's, with the configuration of a training.
    """
    parts = {"train": parsed(parser, "train#cases"), "validation": parsed(parser, "validate#dataset")}
    own = [{"section": section, **row} for section, cases in parts.items() for row in getattr(cases, "left", ())]
    found = {(row["section"], row["case"]): row for rows in processes.gather(own) for row in rows}
    return [
        {"case": row["case"], "section": row["section"], "reason": row["reason"]} for _, row in sorted(found.items())
    ]


def note_left_out(run: Path, rows: list[Row]) -> None:
    """Write ``logs/left_out.json`` and the card's table of them; of none, both are taken away."""
    if rows:
        write_json(run / LEFT_OUT, {"cases": rows})
    else:
        (run / LEFT_OUT).unlink(missing_ok=True)
    card = run / CARD
    if not card.is_file():
        return
    before = read_text(card, LARGEST_YAML)
    if (after := with_left_out(before, rows)) != before:
        write_text(card, after)
