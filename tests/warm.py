"""What the commands load while they run, loaded by an import: of a process of which others are forks.

Nothing is computed: a process that has run PyTorch's threads must not be forked (`rarevox.compiled.team`).
"""

from __future__ import annotations

import importlib

from rarevox.losses.sums.cpu import overlap
from rarevox.networks.cpu.ops import load_kernels
from rarevox.pipeline.compose import CONFIGS, packaged_once
from rarevox.pipeline.trust.vocabulary import vocabulary

for _module in ("torch._dynamo", "rarevox.pipeline.study.cell.run", "rarevox.pipeline.inference.predict"):
    importlib.import_module(_module)
load_kernels()
overlap.are_there()
vocabulary()
for _name in ("common", "train", "evaluate", "inference"):
    packaged_once(CONFIGS / f"{_name}.yaml")
