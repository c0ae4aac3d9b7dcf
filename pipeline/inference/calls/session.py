"""The beginning of a call in a folder: alone in it, or beside others at work on the same cohort."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import version
from rarevox.pipeline.cohort.claims import clear_sources
from rarevox.pipeline.cohort.collect import made_alike, newest_header
from rarevox.pipeline.cohort.journal import FOLDER, Journal, new_id
from rarevox.pipeline.cohort.ledger import Ledger
from rarevox.pipeline.cohort.owners import lives
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import clear_parts_below, json_line
from rarevox.pipeline.inference.calls.kept import (
    covers,
    import_earlier,
    may_stand,
    refuse_strangers,
    require_same_origin,
    superseded,
    tell_replaced,
)
from rarevox.pipeline.inference.calls.planning import Plan
from rarevox.pipeline.inference.calls.row import remove_files
from rarevox.pipeline.inference.outputs.output import Output
from rarevox.pipeline.locks import held

PATIENCE = 200.0
"""Times that a call waits for others that begin or collect: they hold the folder for moments, in a large cohort for
minutes."""


@dataclass
class Session:
    """A call's place among those at work in a folder.

    Attributes:
        id: of the session; see :class:`rarevox.pipeline.cohort.desk.Desk`.
        ledger: what all journals say, read up to the beginning.
        journal: this call's own.
        others: how many calls were at work already.
        asked: what is written of each scan, as journals say it.
    """

    id: str
    ledger: Ledger
    journal: Journal
    others: int
    asked: Mapping[str, Any]

    def stands(self, folder: Path, item: Mapping[str, Any], row: Mapping[str, Any], outputs: Sequence[Output]) -> bool:
        """Whether a scan's row of an earlier call is what this call would write."""
        return _stands(folder, self.ledger, item, row, self.asked, outputs)


def _stands(
    folder: Path,
    ledger: Ledger,
    item: Mapping[str, Any],
    row: Mapping[str, Any],
    asked: Mapping[str, Any],
    outputs: Sequence[Output],
) -> bool:
    before = ledger.source_of(str(item["case"])).header.get("asked")
    return covers(before if isinstance(before, dict) else None, asked) and may_stand(folder, row, outputs, item)


def all_stand(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    made: Mapping[str, Any],
    asked: Mapping[str, Any],
    outputs: Sequence[Output],
) -> bool:
    """Whether nothing would be left to do for a call with ``--keep``, which then need not load a network. Nothing is
    written, and nothing claimed; the first scan that is to be done ends the look.

    Args:
        folder: of the predictions.
        items: the scans of this call.
        made: see :func:`rarevox.pipeline.inference.calls.kept.origin`.
        asked: what is written of each scan, in plain values.
        outputs: the same as objects.
    """
    if not (folder / FOLDER).is_dir():
        return False
    ledger, asked = Ledger(folder), _as_stored(asked)
    ledger.refresh()
    return made_alike(newest_header(ledger), made) and all(
        (case := str(item["case"])) in ledger
        and ledger.is_ok(case)
        and _stands(folder, ledger, item, ledger.row(case), asked, outputs)
        for item in items
    )


def _as_stored(asked: Mapping[str, Any]) -> dict[str, Any]:
    """As it stands in journals: lists, and no tuples."""
    return dict(json.loads(json_line(dict(asked))))


def begin(
    folder: Path,
    wanted: Plan,
    made: Mapping[str, Any],
    asked: Mapping[str, Any],
    config: Mapping[str, Any],
    outputs: Sequence[Output],
    *,
    keep: bool,
) -> Session:
    """Join the calls at work in a folder, or begin a session of one's own.

    Whoever begins one clears away what killed calls left, refuses maps that nobody would write anew, and removes those
    that stand for nothing any more.

    Args:
        folder: of the predictions.
        wanted: the whole list of scans, whatever the share of this call.
        made: see :func:`rarevox.pipeline.inference.calls.kept.origin`.
        asked: what is written of each scan, in plain values.
        config: the run's, for the structures.
        outputs: the same as objects.
        keep: rows of earlier sessions are to stand.

    Raises:
        RequestError: calls with other runs, settings or outputs are at work; see also
            :func:`rarevox.pipeline.inference.calls.kept.refuse_strangers` and
            :func:`rarevox.pipeline.inference.calls.kept.require_same_origin`.
    """
    structures = dict(zip(config["structures"], config["label_values"][1:], strict=True))
    asked = _as_stored(asked)
    header = {**made, "asked": asked, "plan": wanted.digest(), "structures": structures}
    header |= {"composites": config["composites"], "versions": _versions()}
    with held(folder, patience=PATIENCE):
        import_earlier(folder)
        ledger = Ledger(folder)
        ledger.refresh()
        living = [one.header for one in ledger.sources if one.header and lives(folder, one.id, one.header)]
        for source in ledger.sources:
            source.ended = not any(source.id == header.get("id") for header in living)
        if living:
            _require_same_work(folder, living[0], header)
            session = str(living[0].get("session"))
            return Session(session, ledger, Journal(folder, {**header, "session": session}), len(living), asked)
        clear_parts_below(folder)
        clear_sources(folder)
        before, named = newest_header(ledger), {str(item["case"]) for item in wanted.items}
        if keep and len(ledger):
            require_same_origin(folder, before, made)
        elif not keep:
            failed = {str(row["case"]) for row in wanted.left}
            refuse_strangers(folder, ledger, before, made, named | failed)
            tell_replaced(folder, ledger, before, named)
        name = new_id()
        journal = Journal(folder, {**header, "session": name}, name)
        _remove(folder, ledger, journal, superseded(ledger, before, made, named, wanted.left), outputs)
        return Session(name, ledger, journal, 0, asked)


def _remove(folder: Path, ledger: Ledger, journal: Journal, cases: Sequence[str], outputs: Sequence[Output]) -> None:
    """Remove the maps and the rows of cases."""
    for case in cases:
        row = ledger.row(case)
        journal.append({"t": time.time(), "gone": [case]})
        remove_files(folder, outputs, {"image": "", **row}, row)
    ledger.refresh()


def _require_same_work(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    if not made_alike(theirs, ours) or theirs.get("asked") != ours["asked"]:
        raise RequestError(
            f"another call is writing into --output {folder}, with another run, other settings or other outputs; "
            "wait until it ends, or give another folder"
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("rarevox", "monai", "torch")}
