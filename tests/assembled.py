"""Kernels of Triton compiled for compute capability 9.0, without a device."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REGISTERS = 65536
"""Of a processor, for the threads of all programs that it runs at once."""


def assembled(kernel: Any, types: Mapping[str, str], options: Mapping[str, Any], folder: Path) -> tuple[int, int]:
    """Registers a thread and bytes spilled, as NVIDIA's assembler says.

    Args:
        kernel: a function of `triton.jit`.
        types: of its arguments, as Triton writes them; ``i32`` where none is given.
        options: its constants, and ``num_warps``.
        folder: for the assembler's source.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: value for name, value in options.items() if name != "num_warps"}
    signature = {arg: "constexpr" if arg in constants else types.get(arg, "i32") for arg in kernel.arg_names}
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": options["num_warps"], "ptx_version": 88},
    )
    source = folder / "kernel.ptx"
    source.write_text(compiled.asm["ptx"])
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    command = [assembler, "-v", "-arch=sm_90a", source, "-o", "/dev/null"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (registers,), spilled = re.findall(r"Used (\d+) registers", told), re.findall(r"(\d+) bytes spill stores", told)
    return int(registers), max(map(int, spilled))
