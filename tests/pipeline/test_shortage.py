from __future__ import annotations

import pytest

from rarevox.pipeline.shortage import is_out_of_memory


def test_memory_errors_of_the_cpu_count_too() -> None:
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 TB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


@pytest.mark.parametrize(
    "words",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_lack_of_memory_in_the_words_of_libraries_and_driver(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(ValueError(words))
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"))


@pytest.mark.parametrize(
    "words",
    [
        "could not create a primitive",
        "could not create a memory object",
        "std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "Failed to allocate memory for image.",
    ],
)
def test_lack_of_memory_in_everybody_s_words(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("could not create a window"))


def test_a_thread_that_cannot_start_lacks_memory_for_its_stack() -> None:
    assert is_out_of_memory(RuntimeError("can't start new thread"))
