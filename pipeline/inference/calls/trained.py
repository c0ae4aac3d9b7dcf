"""The runs of a call with their configurations for inference, before any network is loaded.

What they build is not held against annotations here: whoever loads the networks does, and has imported them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import STATISTICS_FILE, require_run
from rarevox.pipeline.console import console
from rarevox.pipeline.data.missing import optional_channels
from rarevox.pipeline.entries import parse_setting, put, regions_of
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.brought_up import brought_up
from rarevox.pipeline.inference.calls.networks import Networks
from rarevox.pipeline.inference.members import with_members
from rarevox.pipeline.trust.gate import require_forms, run_config


@dataclass(frozen=True)
class Trained:
    """One run, or those of an ensemble.

    Attributes:
        folders: of the runs.
        configs: of each, the settings over it.
        settings: ``KEY=VALUE`` texts.
        trust: take the runs' configurations whatever they build.
    """

    folders: tuple[Path, ...]
    configs: tuple[dict[str, Any], ...]
    settings: tuple[str, ...]
    trust: bool

    @classmethod
    def of(cls, runs: Sequence[str | Path], settings: Sequence[str], *, trust: bool) -> Trained:
        """The runs at the places named.

        What a setting gives to what is built is not looked at here, but when the networks are loaded.

        Raises:
            RequestError: there is no run, or its configuration is refused.
        """
        folders = tuple(require_run(folder, "inference") for folder in with_members(runs))
        configs = tuple(_config(folder, settings, trust=trust) for folder in folders)
        return cls(folders, configs, tuple(settings), trust)

    @property
    def config(self) -> dict[str, Any]:
        """That of the first run, whose structures and channels are those of all."""
        return self.configs[0]

    def tell_unmoved(self) -> None:
        """Say where ``--set scan_statistics`` changes nothing; see :func:`tell_unmoved`."""
        tell_unmoved(self.folders, self.settings)

    def networks(self, device: str) -> Networks:
        """What loads them, wherever it stands."""
        return Networks(tuple(str(folder.absolute()) for folder in self.folders), device, self.settings, self.trust)

    @property
    def optional(self) -> list[str]:
        """The channels that a scan may lack for every run."""
        return [name for name in self.config["channels"] if all(name in optional_channels(own) for own in self.configs)]

    @property
    def reads_masks(self) -> bool:
        """Whether scans' masks count: in the normalisation, or for the bias field."""
        return any("mask" in regions_of(own["normalisation"]) or bool(own["n4"]) for own in self.configs)

    def require_no_masks(self) -> None:
        """Refuse a call without masks of runs that normalise inside one.

        Raises:
            RequestError: there is such a run.
        """
        for folder, own in zip(self.folders, self.configs, strict=True):
            if "mask" in regions_of(own["normalisation"]):
                told = "give the folder of the scans' masks with --masks"
                raise RequestError(f"{folder} normalises inside a mask; {told}")


def tell_unmoved(runs: Sequence[Path], settings: Sequence[str]) -> None:
    """Say which runs have no statistics of training scans, where a setting asks for scans to be compared with them."""
    if not dict(map(parse_setting, settings)).get("scan_statistics"):
        return
    for folder in runs:
        if not (folder / STATISTICS_FILE).is_file():
            console.say(
                "[yellow]scan_statistics changes nothing[/yellow]: {} has no {}, which rarevox train writes where "
                "scan_statistics is set and batch norms are there, once a training has come to its end",
                folder,
                STATISTICS_FILE,
            )


def _config(folder: Path, settings: Sequence[str], *, trust: bool) -> dict[str, Any]:
    config = brought_up(run_config(folder, "inference", trust=trust), folder)
    for text in settings:
        put(config, *parse_setting(text))
    if settings:
        require_forms(config, "--set")
    return config
