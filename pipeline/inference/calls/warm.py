"""Imported by the server of workers before it forks them: what each of them would load by itself is then there.

Nothing here computes: a process that has run PyTorch's threads must not be forked (`rarevox.compiled.team`).
"""

from __future__ import annotations

from pathlib import Path

from rarevox.pipeline.starting import importing

with importing():
    from rarevox.networks.cpu.ops import load_kernels
    from rarevox.pipeline.device import cpu_has_matrix_units
    from rarevox.pipeline.inference.calls import station
    from rarevox.pipeline.trust.vocabulary import vocabulary

__all__ = ["station"]

vocabulary()
if not cpu_has_matrix_units() and not Path("/dev/nvidiactl").exists():  # else networks hardly run in float32 on the CPU
    load_kernels()  # 0.2 to 0.5 s; where none was compiled yet 12 s, which four workers would spend side by side
