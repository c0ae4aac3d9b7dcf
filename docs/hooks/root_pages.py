"""The pages at the root of the checkout, in the site: README.md is its start."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(\]\()([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, with links as they are from within docs/."""
    root = Path(str(config.config_file_path)).parent
    for name, page in PAGES.items():
        text = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=LINK.sub(lambda found: found[1] + target(found[2]), text)))
    return files


def target(link: str) -> str:
    """A link of a page at the root as it is from within docs/: `docs/losses/README.md` is `losses/README.md`."""
    if link.startswith("examples/"):
        return "examples.md"
    return PAGES.get(link, link.removeprefix("docs/"))
