"""Keep the memory of freed tensors in the process while it trains."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

# glibc's numbers for what `mallopt` sets (malloc.h), and what its own adjusting ends at
# (DEFAULT_MMAP_THRESHOLD_MAX, twice that for the trim threshold; DEFAULT_TOP_PAD).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_USUAL = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}
# The pad is the size of a thread's heap (HEAP_MAX_SIZE): with less, an empty one is given back whatever the
# trim threshold.
_KEPT = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}

_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Let freed memory be used again, instead of giving it back to the system at every step.

    A step of training frees and asks for hundreds of megabytes. glibc returns most of that to the system,
    which hands it back page by page, zeroed: an eighth of the time of a step (docs/performance.md). At the
    end it is given back. Does nothing where there is no glibc.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEPT)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_USUAL)
                _call("malloc_trim", 0)


def _set(options: dict[int, int]) -> None:
    for option, value in options.items():
        _call("mallopt", option, value)


def _call(name: str, *arguments: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, another system
        getattr(ctypes.CDLL(None), name)(*arguments)
