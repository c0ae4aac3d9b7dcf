"""Modules that need Numba: absent without it."""

from __future__ import annotations

import sys

from compiled import compiled_module


def test_a_module_that_is_there():
    assert compiled_module("compiled.team") is sys.modules["compiled.team"]


def test_without_numba_a_module_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "compiled.counter", raising=False)
    compiled_module.cache_clear()
    assert compiled_module("compiled.counter") is None
    compiled_module.cache_clear()
