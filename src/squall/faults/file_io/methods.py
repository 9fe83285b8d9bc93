"""The requests that a file system gets, by the names that FUSE gives them."""

from collections.abc import Mapping
from types import MappingProxyType

METHODS = (
    *("lookup", "forget", "getattr", "setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir"),
    *("symlink", "rename", "link", "open", "read", "write", "flush", "release", "fsync", "opendir"),
    *("readdir", "releasedir", "fsyncdir", "statfs", "setxattr", "getxattr", "listxattr"),
    *("removexattr", "access", "create", "getlk", "setlk", "bmap"),
    *("fallocate", "lseek", "copy_file_range"),
)
"""All that a rule may name: upstream's, and three that upstream does not know."""

_ANSWERED = ("lookup", "getattr", "setattr", "create", "mknod", "mkdir", "symlink", "link")
_GROWING = ("write", "create", "mknod", "mkdir", "symlink", "link", "setattr", "fallocate")
_UNSEEN = frozenset({"access", "bmap"})
"""The kernel answers these itself."""
_UNHEARD = frozenset({"forget", "release", "releasedir"})
"""Nobody waits for these: an error in them goes nowhere."""
_SEEN = frozenset(METHODS) - _UNSEEN

FELT: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "latency": _SEEN,
        "fault": _SEEN - _UNHEARD,
        "attrOverride": frozenset(_ANSWERED),
        "mistake": frozenset({"read", "write"}),
        "noSpace": frozenset({*_GROWING, "copy_file_range"}),
    }
)
"""Which requests an action can change, by its name."""
