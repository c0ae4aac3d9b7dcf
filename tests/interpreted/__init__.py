"""Tests of Triton's kernels on the CPU: their files are run by `test_files.py`, in a process that interprets kernels.

``TRITON_INTERPRET=1 pytest FILE`` runs one of them directly; without the variable it has no such tests.
"""

from __future__ import annotations

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether this is that process; Triton reads the variable once, when kernels are defined."""
