"""Opening paths of targets so that none of their links leads out of them; openat2(2)."""

import ctypes
import os
import struct

_OPENAT2 = 437
"""The same number on every architecture."""
_NO_MAGICLINKS, _IN_ROOT = 0x02, 0x10
"""From linux/openat2.h."""
_libc = ctypes.CDLL(None, use_errno=True)


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open a path as who has the directory `root` for its root sees it.

    Args:
        root: descriptor of the directory.
        path: from there.
        flags: as of open(2).

    Raises:
        OSError: as open(2).
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)
    opened: int = _libc.syscall(
        ctypes.c_long(_OPENAT2), root, os.fsencode(path), how, ctypes.c_size_t(len(how))
    )
    if opened < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return opened
