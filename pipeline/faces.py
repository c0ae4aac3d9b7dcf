"""Faces of packages: the names that configurations use, each imported from its module when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

Face = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def face(package: str, offers: Mapping[str, Sequence[str]]) -> Face:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that offers names of its modules (PEP 562).

    Importing the package imports none of the modules, so that ``rarevox --help`` stays quick; and a configuration that
    says ``rarevox.pipeline.training.Budget`` does not tell in which module the class stands, which may move.

    Args:
        package: its ``__name__``.
        offers: module, seen from the package (``steps.step``) → names that it defines.

    >>> __getattr__, __dir__, __all__ = face("rarevox.pipeline", {"errors": ["RequestError"]})
    >>> __getattr__("RequestError").__module__
    'rarevox.pipeline.errors'
    >>> __all__, "RequestError" in __dir__()
    (['RequestError'], True)
    """
    modules = {name: f"{package}.{module}" for module, names in offers.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, listed, sorted(modules)
