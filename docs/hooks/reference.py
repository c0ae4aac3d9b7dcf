"""The API reference: a page for each package, out of the docstrings of its modules.

A package's page shows what the package exports, under the name that users import, then what else its modules hold.
Everything is shown once: what two packages export, by the outer one.
"""

from __future__ import annotations

import ast
import functools
import itertools
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
TOPS = ("losses", "networks", "transforms", "pipeline", "compiled")
_links = tempfile.TemporaryDirectory(prefix="rarevox-docs-")


@event_priority(100)  # before mkdocstrings reads its options
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show Griffe the packages under the name that they are imported by, and the reader their pages."""
    names = Path(_links.name)
    for top in TOPS:
        link = names / "rarevox" / top
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.symlink_to(ROOT / top, target_is_directory=True)
    # A package of its own: of one without this file Griffe reads every part on the path, and one is the checkout, with
    # the environment in it.
    (names / "rarevox" / "__init__.py").touch()
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(names)]
    assert config.nav is not None
    config.nav.append({"API": ["api/README.md", *(entry for top in TOPS for entry in navigation(ROOT / top))]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    packages = sorted(init.parent for top in TOPS for init in (ROOT / top).rglob("__init__.py"))
    shown: set[tuple[str, str]] = set()
    for package in sorted(packages, key=lambda package: len(package.parts)):
        files.append(File.generated(config, page(package), content=content(package, shown)))
    return files


def dotted(path: Path) -> str:
    """The name that a package or module is imported by."""
    return ".".join(("rarevox", *path.relative_to(ROOT).with_suffix("").parts))


def page(package: Path) -> str:
    """The page of a package."""
    return f"api/{package.relative_to(ROOT)}/index.md"


def navigation(package: Path) -> list[dict[str, Any]]:
    """The pages of a package and of those within it, as the navigation has them."""
    inner = sorted(child.parent for child in package.glob("*/__init__.py"))
    return [{package.name: [page(package), *(entry for child in inner for entry in navigation(child))]}]


def content(package: Path, shown: set[tuple[str, str]]) -> str:
    """The Markdown of a package's page; what it shows is added to ``shown``, as pairs of module and name."""
    faces = [(name, origin) for name, origin in exports(dotted(package)).items() if origin not in shown]
    # Of a function named as its module is, Griffe sees the module.
    faces = [(name, origin) for name, origin in faces if not (package / f"{name}.py").exists()]
    shown.update(origin for _, origin in faces)
    parts = [f"---\ntitle: {dotted(package)}\n---", block(dotted(package), [name for name, _ in faces], level=1)]
    for file in sorted(package.glob("*.py")):
        module = dotted(file)
        names = [name for name in public(file) if (module, name) not in shown]
        if file.name != "__init__.py":
            shown.update((module, name) for name in names)
            parts.append(block(module, names, level=2))
    return "\n\n".join(parts)


def block(name: str, members: list[str], *, level: int) -> str:
    """The instruction to mkdocstrings that documents these members of a module."""
    listed = "[" + ", ".join(members) + "]" if members else "false"
    return f"::: {name}\n    options:\n      heading_level: {level}\n      members: {listed}"


@functools.cache
def exports(package: str) -> dict[str, tuple[str, str]]:
    """What `__all__` of a package names, each with the module that defines it and its name there."""
    init = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
    if not init.exists():
        return {}
    body = ast.parse(init.read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.module]
    origins = {
        alias.asname or alias.name: exports(str(node.module)).get(alias.name, (str(node.module), alias.name))
        for node in imports
        for alias in node.names
    }
    listed = [node.value for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    return {name: origins.get(name, (package, name)) for value in listed for name in ast.literal_eval(value)}


def public(module: Path) -> list[str]:
    """Names without an underscore in front: the classes, functions and documented constants of a module."""
    body = ast.parse(module.read_text(encoding="utf-8")).body
    found = []
    for node, after in itertools.pairwise([*body, None]):
        described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.append(node.name)
        elif described and isinstance(node, ast.Assign | ast.AnnAssign):
            found.append(ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target))
    return [name for name in found if not name.startswith("_")]
