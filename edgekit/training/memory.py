"""Memory that a training step frees and the next one takes again."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""mallopt's parameters, from glibc's malloc.h."""


@contextmanager
def reused_memory() -> Iterator[None]:
    """Keep freed memory in this process while a training runs (glibc only; elsewhere nothing is done).

    Activations come and go every step. Left to itself glibc returns them to the system, which then clears thousands of
    pages anew in every step: some 12 % of the time of a ResNet-20 step on a CPU.
    """
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    libc.mallopt(M_TOP_PAD, 64 << 20)
    try:
        yield
    finally:
        # As glibc adapts by itself in a process that handles tensors; what is free beyond that goes back.
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
        libc.mallopt(M_TOP_PAD, 128 << 10)
        libc.malloc_trim(0)
