"""keep, trim: what the C library does with freed memory. Kept, the next step need not have it zeroed again.

glibc takes every large buffer from the kernel and gives it back when it is freed. A step of an attack on SAM frees and
asks for gigabytes, page by page, and each page is zeroed first: half of the processor time of a step with 64 prompts
went there. Kept, the buffers are used again. No number changes; the process stays as large as it once was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

# glibc's malloc.h. No buffer by mmap; nothing of the heap's end goes back before two gigabytes are free.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_NEVER = 2**31 - 1
SWITCH = "REDSAM_KEEP_MEMORY"


def keep() -> bool:
    """Whether it is so from now on: False without glibc, and where the environment has REDSAM_KEEP_MEMORY=0.

    For the whole process, so no function of the library calls it on its own: the command line and the workers of a
    benchmark do, a script of your own may.
    """
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # musl and macOS have no such name
        return bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, _NEVER))
    except (AttributeError, OSError, TypeError):
        return False


def trim() -> None:
    """Let the C library give back what it keeps, so that resident pages are those at work. Where it can."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it; Windows has no such handle
        ctypes.CDLL(None).malloc_trim(0)
