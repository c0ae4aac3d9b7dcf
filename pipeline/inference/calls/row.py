"""The row of a scan before anything came of it, and the files that go with it."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.rows import files_of, place
from rarevox.pipeline.inference.calls.kept import source
from rarevox.pipeline.inference.outputs.output import Output, names_of

Row = dict[str, Any]


def begun_row(item: Mapping[str, Any], reason: str) -> Row:
    """What every row of a scan says, as a failed one."""
    carried = {key: item[key] for key in ("manifest", "duplicate_of") if key in item}
    return {"case": str(item["case"]), **source(item), "status": "failed", "reason": reason, **carried}


def remove_files(folder: Path, outputs: Sequence[Output], item: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Remove the files of a scan, of this call or an earlier one: none must stand in place of what this call makes.

    Args:
        folder: of the predictions.
        outputs: what is written of each scan.
        item: the scan.
        earlier: its row of an earlier call.
    """
    for name in {*names_of(outputs, item), *files_of(earlier)}:
        try:
            place(folder, name).unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ENOTDIR):  # of such a name there is no file
                raise
