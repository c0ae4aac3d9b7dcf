"""The site is built strictly (links and references that lead nowhere are errors) and opens without a network."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"""<(?:script|img|iframe|link(?! rel="?canonical))\b[^>]*\b(?:src|href)=["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    # Signatures stay on their lines: a formatter's process for each would take longer than all the rest.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "RAREVOX_SIGNATURE": "100000"}
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_starts_with_the_readme_and_shows_every_page(site: Path) -> None:
    assert "Two commands" in (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / (place.with_name("index.html") if place.stem == "README" else place)).exists()


def test_the_examples_are_shown_whole(site: Path) -> None:
    page = re.sub("<[^>]*>", "", (site / "examples.html").read_text(encoding="utf-8"))
    for script in (ROOT / "examples").glob("*.py"):
        for line in script.read_text(encoding="utf-8").splitlines():
            assert html.escape(line, quote=False) in page, f"{script.name}: {line}"


def test_the_reference_shows_what_the_packages_export(site: Path) -> None:
    from rarevox import losses, networks, transforms

    for package in (losses, networks, transforms):
        page = (site / "api" / package.__name__.split(".")[1] / "index.html").read_text(encoding="utf-8")
        missing = {name for name in package.__all__ if f'id="{package.__name__}.{name}"' not in page}
        assert not missing, f"{package.__name__}: {missing}"


def test_roles_and_examples_of_docstrings_are_no_plain_text(site: Path) -> None:
    for page in (site / "api").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r":(class|func|meth|mod|data|attr):", text), page
        assert "<blockquote>" not in text, f"{page}: an example without a fence"


def test_it_opens_without_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not LOADED.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", style.read_text(encoding="utf-8")), style
