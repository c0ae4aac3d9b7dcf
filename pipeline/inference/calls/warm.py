"""Imported by the server of workers before it forks them: what each of them would load by itself is then there.

Nothing here computes: a process that has run PyTorch's threads must not be forked (`rarevox.compiled.team`).
"""

from __future__ import annotations

from pathlib import Path

from rarevox.pipeline.starting import importing

with importing():
    from rarevox import transforms
    from rarevox.networks.cpu.ops import load_kernels
    from rarevox.pipeline.data import datalist
    from rarevox.pipeline.device import cpu_has_matrix_units
    from rarevox.pipeline.inference import dense, ensemble, saving
    from rarevox.pipeline.inference.calls import station
    from rarevox.pipeline.inference.tiling import windows
    from rarevox.pipeline.trust.vocabulary import vocabulary

    for name in transforms.__all__:  # of what configurations name, each is else imported when it is built
        getattr(transforms, name)

__all__ = ["datalist", "dense", "ensemble", "saving", "station", "windows"]

vocabulary()
if not cpu_has_matrix_units() and not Path("/dev/nvidiactl").exists():  # else networks hardly run in float32 on the CPU
    load_kernels()  # 0.2 to 0.5 s; where none was compiled yet 12 s, which four workers would spend side by side
