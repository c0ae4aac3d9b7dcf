"""What the parts compiled by Numba share: modules that may be absent, and PyTorch's own threads for them.

Imported by `networks` and `losses`; imports none of the project's other packages. `eager.py`, `modules.py` and
`team.py` need no Numba; `counter.py` is for kernels to call, and `probe.py` for `modules.py` to try.
"""

from rarevox.compiled.eager import becomes_program, is_eager, is_exported, is_recorded
from rarevox.compiled.modules import compiled_module, has_compiler, source_stamp, why_plain
from rarevox.compiled.team import run_on_team, share_out, why_alone

__all__ = [
    "becomes_program",
    "compiled_module",
    "has_compiler",
    "is_eager",
    "is_exported",
    "is_recorded",
    "run_on_team",
    "share_out",
    "source_stamp",
    "why_alone",
    "why_plain",
]
