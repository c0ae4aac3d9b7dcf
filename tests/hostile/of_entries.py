"""Entries of a folder beside good scans that are no scan, and what the row of each says.

A maker writes one entry, called ``odd`` or ``odd.nii.gz``, into a folder. The table gives the status of its row, where
it is found in a folder that was named (named itself, it is ``failed``), and words of the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

FAILED, IGNORED = "failed", "ignored"


def empty_folder(folder: Path) -> None:
    (folder / "odd").mkdir()


def folder_without_scans(folder: Path) -> None:
    (folder / "odd").mkdir()
    (folder / "odd" / "notes.txt").write_text("none here")


def dangling_link(folder: Path) -> None:
    (folder / "odd").symlink_to(folder / "gone.nii.gz")


def named_pipe(folder: Path) -> None:
    os.mkfifo(folder / "odd")


def loop_of_links(folder: Path) -> None:
    (folder / "odd").symlink_to(folder / "odd")


def link_to_the_folder_above(folder: Path) -> None:
    (folder / "odd").symlink_to(folder, target_is_directory=True)


def folder_of_a_scan_s_name(folder: Path) -> None:
    (folder / "odd.nii.gz").mkdir()


def pipe_of_a_scan_s_name(folder: Path) -> None:
    os.mkfifo(folder / "odd.nii.gz")


def link_of_a_scan_s_name(folder: Path) -> None:
    (folder / "odd.nii.gz").symlink_to(folder / "gone.nii.gz")


ENTRIES: dict[Callable[[Path], None], tuple[str, str]] = {
    empty_folder: (IGNORED, "no scans in"),
    folder_without_scans: (IGNORED, "no scans in"),
    dangling_link: (IGNORED, "is a link to what does not exist"),
    named_pipe: (IGNORED, "is a named pipe"),
    loop_of_links: (IGNORED, "cannot be read"),
    link_to_the_folder_above: (IGNORED, "leads back to a folder above it"),
    folder_of_a_scan_s_name: (FAILED, "no scans in"),
    pipe_of_a_scan_s_name: (FAILED, "is a named pipe"),
    link_of_a_scan_s_name: (FAILED, "is a link to what does not exist"),
}
"""Makers of entries of a folder beside good scans, and what their row says."""
