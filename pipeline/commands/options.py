"""Options that several commands have, and the texts that they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from rarevox.pipeline.data.dataset import ALL_FOLDS
from rarevox.pipeline.errors import RequestError

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path)


class FoldType(click.ParamType):
    """The number of a fold, or ``all``."""

    name = "fold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """As the configuration has it."""
        if value == ALL_FOLDS:
            return ALL_FOLDS
        number = str(value)
        if not number.isdecimal():
            self.fail(f"{value!r} is no fold; expected a whole number from 0, or {ALL_FOLDS}", param, ctx)
        return int(number)


_FORMS = {
    "--channel": ("NAME=PATTERN", "T1='*T1w*'"),
    "--threshold": ("STRUCTURE=P", "lesion=0.3"),
    "--set": ("KEY=VALUE", "surface=area"),
}
"""Options with pairs: what their help calls them, and an example."""


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping.

    Args:
        values: the texts.
        option: one of :data:`_FORMS`.
    """
    found = {}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            form, example = _FORMS[option]
            raise RequestError(f"{option} {text} is not {form}; for example {option} {example}")
        if name in found:
            raise RequestError(f"{option} names {name} twice")
        found[name] = value
    return found


def named_structures(values: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as ``structures``, and ``NAME=1+2`` as ``composites``; None for none."""
    from rarevox.pipeline.data.composites import parse_structures

    named = parse_structures(values)
    unions = {name: value for name, value in named.items() if isinstance(value, tuple)}
    single = {name: value for name, value in named.items() if name not in unions}
    return {"structures": single or None, "composites": unions or None}


def device_option(command: Command) -> Command:
    """``--device``."""
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")(command)


def network_option(command: Command) -> Command:
    """``--network``."""
    text = "Such as deepmedic, unet; a wrong name lists all.  [default: the plan's]"
    return click.option("--network", metavar="NAME", help=text)(command)


def loss_option(command: Command) -> Command:
    """``--loss``."""
    text = "Such as gdl, dice_ce; a wrong name lists all.  [default: the dataset's plan, else gdl_ce]"
    return click.option("--loss", metavar="NAME", help=text)(command)


def others_option(command: Command) -> Command:
    """``--with``, as ``others``."""
    text = "Another run, whose class probabilities are averaged with RUN's. Repeatable."
    return click.option("--with", "others", metavar="RUN", type=FOLDER, multiple=True, help=text)(command)


def results_options(command: Command) -> Command:
    """What `predict` writes for people and hospitals: ``--series``, ``--lesions``, ``--dicom``, ``--layout`` …"""
    several = (
        click.option(
            "--series",
            metavar="RULE",
            multiple=True,
            help="Choose series in DICOM trees, such as modality=MR,min-slices=20; one for each channel.",
        ),
        click.option("--lesions", is_flag=True, help="Write lesions.csv and structures.csv too."),
        click.option("--atlas", metavar="FILE", type=FOLDER, help="Regions, to say in which each lesion lies."),
        click.option(
            "--atlas-names", metavar="FILE", type=FOLDER, help="The regions' names: lines NUMBER NAME, or JSON."
        ),
        click.option("--previews", is_flag=True, help="Write CASE_preview.jpg too."),
        click.option(
            "--dicom",
            type=click.Choice(["binary", "labelmap"]),
            is_flag=False,
            flag_value="binary",
            help="Write a DICOM segmentation and report too of scans that came as DICOM.  [as a flag: binary]",
        ),
        click.option("--dicom-codes", metavar="FILE", type=FOLDER, help="Codes of structures in them, YAML."),
        click.option("--layout", type=click.Choice(["bids"]), help="Write a BIDS derivative dataset."),
    )
    for option in reversed(several):
        command = option(command)
    return command


def threshold_option(command: Command) -> Command:
    """``--threshold``, as ``thresholds``."""
    text = "Probability above which a voxel is STRUCTURE, in place of RUN's. Repeatable."
    return click.option("--threshold", "thresholds", metavar="STRUCTURE=P", multiple=True, help=text)(command)


def settings_option(command: Command) -> Command:
    """``--set``, as ``settings``."""
    text = "Set any key of the configuration (docs/configuration.md), for example inferer#flips=[0]. Repeatable."
    return click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help=text)(command)


def trust_option(command: Command) -> Command:
    """``--trust``."""
    text = "Build whatever RUN's configuration names, code of its author's too."
    return click.option("--trust", is_flag=True, help=text)(command)
