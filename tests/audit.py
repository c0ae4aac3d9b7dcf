"""``make audit``: the known holes of the versions in ``constraints.txt``, and of the lowest in ``pyproject.toml``.

pip-audit asks the advisories of PyPI. Status: 0, none is known; 1, some are, listed with the versions that mend them;
2, no answer, or none about some package: one sentence says so, since silence is no clean bill.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NO_ANSWER = (
    "make audit: the service of advisories (PyPI) gave no answer, and nothing is known of the dependencies; try again "
    "where it can be reached"
)
_REQUIREMENT = re.compile(r'^ *"?([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?>=([0-9][\w.]*)')


def lowest(pyproject: str) -> list[str]:
    """The lowest versions that the dependencies of a ``pyproject.toml`` admit, as pins.

    >>> lowest('dependencies = [\\n    "numpy>=1.26",\\n]\\ndocs = ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1.0"]')
    ['mkdocs==1.6', 'mkdocstrings==1.0', 'numpy==1.26']
    """
    found = (_REQUIREMENT.match(text) for text in re.findall(r'"[^"]*"', pyproject))
    return sorted({f"{match[1]}=={match[2]}" for match in found if match})


def sentences(answer: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What pip-audit's answer says: the holes, one line for each, and the packages that it knows nothing of.

    >>> hole = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}
    >>> packages = [{"name": "a", "version": "2.0", "vulns": [hole]}, {"name": "b", "skip_reason": "not found"}]
    >>> sentences({"dependencies": packages})
    (['a 2.0: PYSEC-1 (CVE-1), mended in 2.1'], ['b'])
    """
    holes, unknown = [], []
    for package in answer["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
        for hole in package.get("vulns", ()):
            others = f" ({', '.join(hole['aliases'])})" if hole["aliases"] else ""
            mended = f"mended in {', '.join(hole['fix_versions'])}" if hole["fix_versions"] else "not mended yet"
            holes.append(f"{package['name']} {package['version']}: {hole['id']}{others}, {mended}")
    return holes, unknown


def ask(requirements: Path) -> Mapping[str, Any] | None:
    """pip-audit's answer about pinned requirements; None without one."""
    options = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), *options]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(said.stdout)
    except json.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def audit(what: str, answer: Mapping[str, Any]) -> int:
    """Say what came of asking about one list; returns the status."""
    holes, unknown = sentences(answer)
    for hole in holes:
        print(f"{what}: {hole}")
    if unknown:
        some = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        print(f"{what}: nothing could be learnt of {len(unknown)} packages ({some}); ask PyPI itself", file=sys.stderr)
        return 2
    if not holes:
        print(f"{what}: no hole is known in {len(answer['dependencies'])} packages")
    return 1 if holes else 0


def main(arguments: Sequence[str] = ()) -> int:
    """Both lists; the higher status. Where there is no answer about the first, the second is not asked about."""
    root = Path(arguments[0]) if arguments else ROOT
    with tempfile.TemporaryDirectory() as folder:
        bounds = Path(folder) / "lowest.txt"
        bounds.write_text("\n".join(lowest((root / "pyproject.toml").read_text(encoding="utf-8"))) + "\n")
        lists = {"constraints.txt": root / "constraints.txt", "lowest of pyproject.toml": bounds}
        found = 0
        for what, requirements in lists.items():
            answer = ask(requirements)
            if answer is None or all("skip_reason" in one for one in answer["dependencies"]):
                print(NO_ANSWER, file=sys.stderr)
                return 2
            found = max(found, audit(what, answer))
        return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
