"""What prepare shows on screen: the faults, the summary of the dataset and the plan."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rarevox.pipeline.console import console
from rarevox.pipeline.data.nested import nested_regions
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.figures import moment
from rarevox.pipeline.files import read_json
from rarevox.pipeline.preparation.cases import THERE, Fault
from rarevox.pipeline.preparation.corrected.corrections import Fix
from rarevox.pipeline.preparation.examine import Examination
from rarevox.pipeline.preparation.rules.choice import Choice
from rarevox.pipeline.words import counted, listed, visible

_MANY = 10
_FEW = 50
"""Subjects below which a test set held out of them is too small to tell."""
_FIGURE = re.compile(r"\d[\d.]*(?:e[+-]?\d+)?(?: of | (?:label |foreground )?voxels?| mm\b| ?%|°)")
"""A number that each case has its own of, by what it counts or measures; values of labels are not such."""


def show_faults(faults: Sequence[Fault], root: Path) -> None:
    """Errors, those alike but for the case's name together; a warning that more than ten cases share is told once.

    File names are shown relative to ``root``, the source; ``rejected.json`` has them in full.
    """
    if not faults:
        return
    counts = Counter(fault.check for fault in faults if fault.severity == "warning")
    alike: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        many = fault.severity == "warning" and counts[fault.check] > _MANY
        alike.setdefault((fault.check, "" if many else _kind(fault)), []).append(fault)
    console.print("Faults")
    for (_, kind), some in alike.items():
        fault = some[0]
        cases = list(dict.fromkeys(one.case for one in some))
        case = (f"{len(cases)} cases: " if len(cases) > 1 else "") + listed(cases, _MANY if kind else 1)
        message = fault.message if not fault.file or fault.file in fault.message else f"{fault.message} ({fault.file})"
        if len({tuple(_FIGURE.findall(one.message)) for one in some}) > 1:
            message = f"in one of them: {message}"
        if fault.severity == "error":
            console.say("  [red]error[/red] {}, {}", fault.check, case)
        else:
            console.say("  [yellow]warning[/yellow] {}, {}", fault.check, case)
        _below(message.replace(f"{root}/", ""))


def _below(text: str) -> None:
    """What belongs to the line above, broken between words alone: what is to be copied stays whole."""
    said = visible(text).replace("\n", r"\x0a")  # no name feigns a line
    console.print(Padding(Text(said), (0, 0, 0, 6)), soft_wrap=False)


def _kind(fault: Fault) -> str:
    """What several cases' faults may have alike: the message without the case's name, the file that is named with it,
    the list of what is there, and how many voxels, millimetres and such it is."""
    file = "" if fault.file in fault.message else fault.file
    message = _FIGURE.sub("#", fault.message.split(THERE)[0])
    return f"{fault.severity}: {message} {file}".replace(fault.case, "\0")


def show_fixes(fixes: Sequence[Fix]) -> None:
    """What was corrected, once for each kind of correction; ``fixed.json`` has them all."""
    if not fixes:
        return
    console.print("Corrected copies")
    for check in dict.fromkeys(fix.check for fix in fixes):
        some = [fix for fix in fixes if fix.check == check]
        cases = dict.fromkeys(fix.case for fix in some)
        who = next(iter(cases)) if len(cases) == 1 else f"{next(iter(cases))} and {len(cases) - 1} more"
        console.say("  {}, {}", check, who)
        _below(some[0].what if len(cases) == 1 else f"in the first: {some[0].what}")


def show_replaced(file: Path, fingerprint: str) -> None:
    """Say what an earlier ``dataset.json`` held, which a new one is about to replace; nothing where there is none.

    Args:
        file: the ``dataset.json``.
        fingerprint: of the scans of the new one.
    """
    if not file.is_file():
        return
    when = moment(file.stat().st_mtime)
    try:
        old = read_json(file)
        training, test, own = len(old["training"]), len(old["test"]), old["fingerprint"]
    except (RequestError, LookupError, TypeError):
        console.print(f"{file} of {when} is replaced")
        return
    scans = "the same" if own == fingerprint else "other"
    held = f"{counted(training, 'case')} for training and {test} held out, seed {old.get('seed')}"
    console.print(f"{file} of {when} ({held}, of {scans} scans and labels) is replaced")


def show_summary(
    output: Path,
    kind: str,
    content: dict[str, Any],
    fingerprint: dict[str, Any],
    seen: Examination,
) -> None:
    """Cases, channels, structures with their size and rarity, the split, and the files written."""
    training, test, rejected = content["training"], content["test"], len(seen.rejected)
    subjects = {case.case: case.subject or case.case for case in seen.cases.values()}
    table = Table(title=f"{content['name']}: {kind}", title_justify="left", show_header=False)
    table.add_row("cases", f"{fingerprint['cases']}" + (f" ({rejected} left out)" if rejected else ""))
    table.add_row("channels", ", ".join(content["channels"]))
    table.add_row("size", " × ".join(f"{axis['median']:.0f}" for axis in fingerprint["size"]) + " voxels (median)")
    table.add_row("spacing", " × ".join(f"{axis['median']:.3g}" for axis in fingerprint["spacing_mm"]) + " mm (median)")
    for name, structure in fingerprint["structures"].items():
        table.add_row(name, _structure_text(structure, fingerprint["cases"]))
    for name, values in content.get("composites", {}).items():
        parts = " + ".join(label for label, value in content["labels"].items() if value in values)
        table.add_row(name, f"union of {parts}")
    if chain := _chain(content):
        table.add_row("nested", f"{chain}: train --config regions learns them so")
    if fingerprint["ignored_share"]:
        cases = sum(case["ignored_voxels"] > 0 for case in fingerprint["per_case"])
        where, share = counted(cases, "case"), 100 * fingerprint["ignored_share"]["median"]
        table.add_row(
            "not annotated",
            f"{share:.3g} % of the voxels (median) in {where}, label {content['ignored']}",
        )
    learnt, held = (_cases_text([subjects[case["case"]] for case in cases]) for cases in (training, test))
    folds = counted(content["folds"], "fold")
    table.add_row("split", f"{learnt} for training in {folds}, {held} held out")
    written = ("dataset.json", "fingerprint.json", "checks.html")
    table.add_row("written", ", ".join(str(output / name) for name in written))
    console.print(table)
    count = len({subjects[case["case"]] for case in (*training, *test)})
    stated = any(case.part for case in seen.cases.values())
    if test and not stated and count < _FEW:
        few = f"{counted(count, 'subject')} are few to hold some out of"
        console.print(f"{few}: prepared with --holdout 0, rarevox crossval scores every one")


def _cases_text(subjects: Sequence[str]) -> str:
    """How many cases there are, by their subjects, and of how many where some have several.

    >>> _cases_text(["p1", "p1", "p2"]), _cases_text(["p1"])
    ('3 (of 2 subjects)', '1')
    """
    count = len(set(subjects))
    return f"{len(subjects)}" + (f" (of {counted(count, 'subject')})" if count < len(subjects) else "")


def show_plan(plan: Sequence[Choice], output: Path, *, named: bool) -> None:
    """What was chosen for training and why, in a sentence each; and how structures get names, where they have none."""
    console.print(f"Plan, with all of its reasons in {output / 'plan.yaml'}", soft_wrap=True)
    for choice in plan:
        console.print(f"  {choice.key}: {_value_text(choice.value)}", soft_wrap=True)  # to be copied: never broken
        _below(_first_sentence(choice.reason))
    if not named:
        console.print("structures are called after their values; name them with --structure NAME=VALUE")
    console.print(
        f"next: look at {output / 'checks.html'}; rarevox train {output} --output RUN, with plan.yaml as it is or "
        "edited, or --set KEY=VALUE",
        soft_wrap=True,
    )


def _first_sentence(reason: str) -> str:
    """The first sentence of a reason.

    >>> _first_sentence("Foreground fills 0.38 % of a scan: half of the patches hold none. They stay so.")
    'Foreground fills 0.38 % of a scan: half of the patches hold none.'
    """
    first, dot, _ = reason.partition(". ")
    return first + dot.rstrip()


def _value_text(value: Any) -> str:
    """A choice's value in words: a class by its name with its options."""
    if isinstance(value, dict):
        options = (f"{key} {option}" for key, option in value.items() if key not in ("_target_", "keys"))
        return " ".join([value["_target_"].rpartition(".")[2], *options])
    return "own grid" if value is None else str(value)


def _chain(content: dict[str, Any]) -> str:
    """The regions of a dataset where they are nested, and plainly so; else nothing."""
    try:
        unions = {name: tuple(values) for name, values in content.get("composites", {}).items()}
        return " ⊃ ".join(nested_regions(content["labels"], unions))
    except RequestError:
        return ""


def _structure_text(structure: dict[str, Any], cases: int) -> str:
    if not structure["cases"]:
        return "in no case"
    share, volume = structure["share"]["median"], structure["volume_ml"]["median"]
    where = "in every case" if structure["cases"] == cases else f"in {structure['cases']} of {cases} cases"
    return f"{volume:.3g} ml, {100 * share:.2g} % of the volume (1 : {1 / share:,.0f}), {where}"
