"""``rarevox verify RUN``: is the run as its training left it, and who says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.trust.gate import Refusal, run_config
from rarevox.pipeline.trust.sums import SUMS_FILE, read_sums, sum_of, summed_files

SIGNATURE_FILE = f"{SUMS_FILE}.sig"
NAMESPACE = "rarevox"
"""Of the signature, so that one made for something else (a commit, a mail) does not count."""


def verify(run: str | Path, *, signers: str | Path | None = None) -> int:
    """Compare a run's files with its sums, and its signature, where it has one, with the sums.

    Sums alone tell damage and carelessness; only a signature tells who made them. It is OpenSSH's: made with
    ``ssh-keygen -Y sign -f KEY -n rarevox RUN/sha256sums.txt`` and checked by ``ssh-keygen``.

    Args:
        run: the run folder.
        signers: who may have signed: OpenSSH's file of allowed signers (``NAME ssh-ed25519 KEY`` a line). The
            signature must then be there, and be one of theirs.

    Returns:
        0; 1 where a file is missing, differs or is not in the sums, or the signature does not hold.

    Raises:
        RequestError: no run, no sums, no file of signers, or no ``ssh-keygen`` for a signature.
    """
    run = Path(run)
    if not run.is_dir():
        raise RequestError(f"{run} is no folder; give that of a run")
    if signers is not None and not Path(signers).is_file():
        raise RequestError(f"--signers {signers} does not exist; expected OpenSSH's file of allowed signers")
    faults = compare(run)
    for fault in faults:
        console.print(fault, style="red", markup=False, highlight=False)
    signed = _signature(run, signers)
    for stage in ("train", "evaluate", "inference"):
        try:
            run_config(run, stage)
        except Refusal as error:
            console.print(f"more than data: {error}", style="yellow", markup=False, highlight=False)
        except RequestError as error:
            faults.append(str(error))
            console.print(str(error), style="red", markup=False, highlight=False)
    if faults or not signed:
        return 1
    console.print(f"{len(read_sums(run))} files are as {run / SUMS_FILE} says", markup=False, highlight=False)
    return 0


def compare(run: Path) -> list[str]:
    """A sentence for each file that is missing, differs, or is not in the sums.

    Raises:
        RequestError: no sums.
    """
    sums = read_sums(run)
    faults = []
    for name, said in sums.items():
        if not (run / name).is_file():
            faults.append(f"{name} is missing")
        elif sum_of(run / name) != said:
            faults.append(f"{name} is not what it was: its SHA-256 differs from {SUMS_FILE}")
    unlisted = [name for name in summed_files(run) if name not in sums]
    # What Python would import in place of a library, or MONAI as the bundle's own code.
    code = [p.relative_to(run).as_posix() for p in run.rglob("*") if p.suffix in (".py", ".pyc", ".so", ".pth")]
    return faults + [f"{name} is not in {SUMS_FILE}" for name in sorted({*unlisted, *code} - set(sums))]


def _signature(run: Path, signers: str | Path | None) -> bool:
    """Whether the signature holds, or none is asked for; what was found is said."""
    file = run / SIGNATURE_FILE
    if not file.is_file():
        if signers is None:
            console.print(f"not signed (no {SIGNATURE_FILE})", markup=False)
            return True
        console.print(f"not signed: there is no {SIGNATURE_FILE}", style="red", markup=False)
        return False
    if signers is None:
        good, said = _ask(["check-novalidate"], run)
        told = f"signed, by whom --signers would tell: {said}" if good else f"{SIGNATURE_FILE} does not hold: {said}"
        console.print(told, style=None if good else "red", markup=False, highlight=False)
        return good
    listed = ["-f", str(Path(signers).resolve())]
    known, said = _ask(["find-principals", *listed], run, of_sums=False)
    if known:
        known, said = _ask(["verify", *listed, "-I", said.splitlines()[0].split(",")[0]], run)
    told = said if known else f"{SIGNATURE_FILE} is of none of {signers}, or does not hold: {said}"
    console.print(told, style=None if known else "red", markup=False, highlight=False)
    return known


def _ask(question: list[str], run: Path, *, of_sums: bool = True) -> tuple[bool, str]:
    """Ask ``ssh-keygen``; whether it agrees, and its words."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise RequestError(f"{run / SIGNATURE_FILE} is checked by ssh-keygen, which is not here; install OpenSSH 8.2")
    command, *rest = question
    namespace = ["-n", NAMESPACE] if of_sums else []
    done = subprocess.run(
        [program, "-Y", command, *rest, *namespace, "-s", str((run / SIGNATURE_FILE).resolve())],
        input=(run / SUMS_FILE).read_bytes() if of_sums else b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).decode(errors="replace").strip()
    return done.returncode == 0, said or f"ssh-keygen ended with {done.returncode}"
