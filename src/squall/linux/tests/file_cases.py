"""What POSIX and Linux say about files, as small programs: each tells what it saw.

Run in a native directory and in a filtered one, each must see the same. `as_user` runs its function
as an ordinary user, in a process of its own.
"""

import ast
import ctypes
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

USER, GROUP, SECOND_GROUP = 4321, 4322, 4323
_LIBC = ctypes.CDLL(None, use_errno=True)

Case = Callable[[Path], object]


def outcome(act: Callable[[], object]) -> object:
    """What it returns, or the number of its error."""
    try:
        return act()
    except OSError as error:
        return f"errno {error.errno}"


def as_user(act: Callable[[], object]) -> object:
    """Run as a user with two groups and no rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([SECOND_GROUP])
        os.setgid(GROUP)
        os.setuid(USER)
        os.write(writer, repr(outcome(act)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return ast.literal_eval(answer)


def told(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return (oct(found.st_mode), found.st_uid, found.st_gid, found.st_nlink, size, found.st_rdev)


def file(path: Path, mode: int = 0o644, content: bytes = b"content") -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def directory(path: Path, mode: int, group: int = 0) -> Path:
    path.mkdir()
    os.chown(path, 0, group)
    path.chmod(mode)
    return path


def created_by_a_user(at: Path) -> object:
    open_to_all = directory(at / "all", 0o777)

    def act() -> object:
        os.umask(0o027)
        os.close(os.open(open_to_all / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        (open_to_all / "d").mkdir()
        os.mkfifo(open_to_all / "p", 0o666)
        (open_to_all / "s").symlink_to("f")
        return [told(open_to_all / name) for name in "fdps"]

    return as_user(act)


def created_where_only_a_second_group_may(at: Path) -> object:
    shared = directory(at / "shared", 0o2770, SECOND_GROUP)

    def act() -> object:
        os.close(os.open(shared / "f", os.O_CREAT | os.O_WRONLY, 0o2755))
        (shared / "d").mkdir()
        return told(shared / "f"), told(shared / "d")

    return as_user(act)


def default_access_list(at: Path) -> object:
    """A default ACL takes the place of the umask."""
    entries = [
        (1, 7, 2**32 - 1),
        (2, 6, USER),
        (4, 5, 2**32 - 1),
        (16, 7, 2**32 - 1),
        (32, 0, 2**32 - 1),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    top = directory(at / "acl", 0o755)
    before = os.umask(0o077)
    try:
        os.setxattr(top, "system.posix_acl_default", acl)
        made = top / "f"
        os.close(os.open(made, os.O_CREAT | os.O_WRONLY, 0o666))
        return told(made), os.getxattr(made, "system.posix_acl_access")
    finally:
        os.umask(before)


def access_list_lets_one_in(at: Path) -> object:
    entries = [
        (1, 6, 2**32 - 1),
        (2, 4, USER),
        (4, 0, 2**32 - 1),
        (16, 4, 2**32 - 1),
        (32, 0, 2**32 - 1),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    secret = file(at / "secret", 0o600)
    os.setxattr(secret, "system.posix_acl_access", acl)
    return as_user(secret.read_bytes), as_user(lambda: secret.write_bytes(b"")), told(secret)


def rights_of_others(at: Path) -> object:
    own, sticky = file(at / "own"), directory(at / "sticky", 0o1777)
    file(sticky / "f", 0o666)
    return (
        as_user(own.read_bytes),
        as_user(lambda: own.write_bytes(b"x")),
        as_user(lambda: own.chmod(0o777)),
        as_user(lambda: os.utime(own, (1, 1))),
        as_user((sticky / "f").unlink),
        as_user((at / "new").mkdir),
        as_user(lambda: os.access(own, os.R_OK)),
        as_user(lambda: os.access(own, os.W_OK)),
        as_user(lambda: os.link(own, at / "all" / "l")),
    )


def set_user_id_bits(at: Path) -> object:
    def bits(number: int) -> str:
        return oct((at / f"f{number}").stat().st_mode)

    files = [file(at / f"f{number}", 0o6777) for number in range(5)]
    (at / "f0").write_bytes(b"root may")
    as_user(lambda: files[1].open("r+b").write(b"x"))
    as_user(lambda: os.truncate(files[2], 1))
    os.chown(files[3], USER, GROUP)
    os.chown(files[4], USER, GROUP)
    as_user(lambda: files[4].chmod(0o2755))
    return [bits(number) for number in range(5)]


def set_group_id_of_a_foreign_group(at: Path) -> object:
    for name, group in (("own", SECOND_GROUP), ("foreign", 77)):
        os.chown(file(at / name), USER, group)
        as_user(lambda name=name: (at / name).chmod(0o2755))
    return told(at / "own"), told(at / "foreign")


def capability_goes_with_a_write(at: Path) -> object:
    program = file(at / "program", 0o755)
    value = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(program, "security.capability", value)
    before = os.listxattr(program)
    with program.open("r+b") as opened:
        opened.write(b"x")
    return before, os.listxattr(program)


def names_that_cannot_be(at: Path) -> object:
    (at / "d" / "e").mkdir(parents=True)
    file(at / "f")
    (at / "s").symlink_to("f")
    (at / "loop").symlink_to("loop")
    return [
        outcome(lambda: os.open(at / "f", os.O_CREAT | os.O_EXCL)),
        outcome(lambda: os.open(at / "s", os.O_NOFOLLOW)),
        outcome(lambda: os.open(at / "loop", os.O_RDONLY)),
        outcome(lambda: os.open(at / "f", os.O_DIRECTORY)),
        outcome(lambda: os.open(at / "d", os.O_WRONLY)),
        outcome(lambda: os.unlink(at / "d")),
        outcome(lambda: os.rmdir(at / "d")),
        outcome(lambda: os.rmdir(at / "f")),
        outcome(lambda: os.rename(at / "d", at / "d" / "e" / "g")),
        outcome(lambda: os.rename(at / "f", at / "d")),
        outcome(lambda: os.rename(at / "d", at / "f")),
        outcome(lambda: os.link(at / "d", at / "l")),
        outcome(lambda: os.open(at / ("x" * 256), os.O_CREAT)),
        outcome(lambda: os.stat(at / "f" / "x")),
        outcome(lambda: os.readlink(at / "f")),
        outcome(lambda: os.open(at / "none", os.O_RDONLY)),
        outcome(lambda: os.symlink("t", at / "f")),
        outcome(lambda: os.mkdir(at / "f")),
    ]


def kinds_of_files(at: Path) -> object:
    os.mkfifo(at / "fifo", 0o640)
    os.mknod(at / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(at / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        here = os.open(at, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        listener.listen()
        client.connect(f"/proc/self/fd/{here}/socket")
        os.close(here)
    writer = threading.Thread(target=lambda: (at / "fifo").write_bytes(b"through"))
    writer.start()
    got = (at / "fifo").read_bytes()
    writer.join()
    kinds = sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in os.scandir(at))
    return (
        got,
        (at / "null").write_bytes(b"x"),
        kinds,
        [told(path) for path in sorted(at.iterdir())],
    )


def hard_links_are_one_file(at: Path) -> object:
    first = file(at / "first")
    os.link(first, at / "second")
    same = first.stat().st_ino == (at / "second").stat().st_ino
    (at / "second").write_bytes(b"by the second")
    first.unlink()
    return same, (at / "second").read_bytes(), told(at / "second")


def extended_attributes(at: Path) -> object:
    path = file(at / "x")
    os.setxattr(path, "user.a", b"1" * 300)
    os.setxattr(path, "trusted.b", b"2")
    return [
        outcome(lambda: os.setxattr(path, "user.a", b"", os.XATTR_CREATE)),
        outcome(lambda: os.setxattr(path, "user.none", b"", os.XATTR_REPLACE)),
        sorted(os.listxattr(path)),
        len(os.getxattr(path, "user.a")),
        outcome(lambda: os.removexattr(path, "user.a")),
        outcome(lambda: os.getxattr(path, "user.a")),
        as_user(lambda: sorted(os.listxattr(path))),
        outcome(lambda: os.setxattr(path, "foreign.a", b"")),
    ]


def moments(at: Path) -> object:
    path = file(at / "t", 0o666)
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321))
    found = path.stat()
    as_user(lambda: os.utime(path))
    return found.st_atime_ns, found.st_mtime_ns, abs(path.stat().st_mtime - time.time()) < 60


def large_directory(at: Path) -> object:
    for number in range(1500):
        (at / f"a-rather-long-name-{number}").touch()
    seen = []
    with os.scandir(at) as entries:  # what is removed meanwhile moves nobody else
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    return len(seen), len(set(seen)), list(at.iterdir())


def watched(at: Path) -> object:
    fd = _LIBC.inotify_init1(os.O_NONBLOCK)
    _LIBC.inotify_add_watch(fd, str(at).encode(), 0x100 | 0x200 | 0x8)  # create, delete, written
    file(at / "seen").unlink()
    events = os.read(fd, 4096)
    os.close(fd)
    return events.count(b"seen")


def file_system(at: Path) -> object:
    found = os.statvfs(at)
    return found.f_bsize, found.f_frsize, found.f_namemax, found.f_blocks > found.f_bavail > 0


CASES: tuple[Case, ...] = (
    created_by_a_user,
    created_where_only_a_second_group_may,
    default_access_list,
    access_list_lets_one_in,
    rights_of_others,
    set_user_id_bits,
    set_group_id_of_a_foreign_group,
    capability_goes_with_a_write,
    names_that_cannot_be,
    kinds_of_files,
    hard_links_are_one_file,
    extended_attributes,
    moments,
    large_directory,
    watched,
    file_system,
)
