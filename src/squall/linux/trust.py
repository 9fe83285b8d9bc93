"""The lists of trusted authorities on Linux: files of PEM in the containers of a pod.

Ours stand between two remarks of ours, so that they are found again, and taken out, by anybody.
Lists of the host itself, which a process without a root of its own sees too, are never touched:
others would trust us, too.
"""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from squall.injection.world.target import Target
from squall.linux import beneath, namespaces
from squall.linux.processes import PROC
from squall.telemetry import logger

LISTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where distributions keep them: Debian and Alpine, Fedora, SUSE, others."""

NAMED_BY = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Variables by which programs are told of others."""

LONGEST_BYTES = 16 << 20
"""Nobody trusts so many; such a file is something else."""

_OURS = re.compile(
    rb"(?:\n# squall joined|# squall) (?P<mark>[^\n]+)\n(?P<pem>.*?)# squall end (?P=mark)\n",
    re.DOTALL,
)
_HOSTS = ("1", "self")
"""Processes whose root is the host's: the first of all, where it may be seen, and an agent that
runs in no container."""

File = tuple[int, int]
"""Device and inode."""


class LinuxTrust:
    """Reads and changes lists below the roots of the processes of a pod, beneath file faults."""

    async def roots(self, target: Target) -> str:
        """Join all lists, without what is ours."""
        found = await asyncio.to_thread(_read, target)
        return "\n".join(_OURS.sub(b"", text).decode(errors="replace") for text in found)

    async def ours(self, target: Target) -> Mapping[str, str]:
        """Read what of ours is in any list."""
        found = await asyncio.to_thread(_read, target)
        return {mark: pem for text in found for mark, pem in _marked(text).items()}

    async def apply(self, target: Target, wanted: Mapping[str, str]) -> None:
        """Take out what is not wanted any more, and append what is new."""
        await asyncio.to_thread(_apply, target, wanted)


def _read(target: Target) -> list[bytes]:
    with _lists(target) as lists:
        return [_content(descriptor) for descriptor in lists]


def _apply(target: Target, wanted: Mapping[str, str]) -> None:
    with _lists(target) as lists:
        for descriptor in lists:
            before = _content(descriptor)
            if _marked(before) == wanted:
                continue
            kept = _OURS.sub(lambda found: found[0] if _is_wanted(found, wanted) else b"", before)
            for mark in wanted.keys() - _marked(kept).keys():
                kept += _block(mark, wanted[mark], joined=not kept.endswith(b"\n"))
            _write(descriptor, before, kept)


def _marked(text: bytes) -> dict[str, str]:
    return {one["mark"].decode(): one["pem"].decode() for one in _OURS.finditer(text)}


def _is_wanted(found: re.Match[bytes], wanted: Mapping[str, str]) -> bool:
    return wanted.get(found["mark"].decode()) == found["pem"].decode()


def _block(mark: str, certificate: str, *, joined: bool) -> bytes:
    begin = "\n# squall joined" if joined else "# squall"
    return f"{begin} {mark}\n{certificate}# squall end {mark}\n".encode()


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, LONGEST_BYTES, 0)


def _write(descriptor: int, before: bytes, after: bytes) -> None:
    """Change a file where it differs; what readers see meanwhile is a list that is shorter."""
    pairs = enumerate(zip(before, after, strict=False))
    same = next((at for at, (a, b) in pairs if a != b), min(len(before), len(after)))
    if same < len(before):
        os.ftruncate(descriptor, same)
    rest = after[same:]
    while rest:
        same += os.pwrite(descriptor, rest, same)
        rest = after[same:]


@contextmanager
def _lists(target: Target) -> Iterator[list[int]]:
    """Open every list of a target's pod that can be changed, each file once."""
    opened: dict[File, int] = {}
    try:
        for pid in _processes(target):
            with suppress(OSError), beneath.root(pid) as root:
                for path in (*LISTS, *_named(pid)):
                    descriptor = _open_list(root, path, os.O_RDWR)
                    if descriptor is None:
                        continue
                    file = _file(descriptor)
                    if file in opened or file in _of_host(path):
                        os.close(descriptor)
                    else:
                        opened[file] = descriptor
        yield list(opened.values())
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _processes(target: Target) -> Iterator[int]:
    """Find one process in each mount namespace of a target's pod.

    By its cgroup: others that share its network may be anybody, such as holders of ours.
    """
    namespaces.of(target)  # or it is gone
    marks = [mark for mark in (target.container_id, *_written(target.pod_uid)) if mark]
    seen: set[int] = set()
    for pid in [target.pid, *(int(path.name) for path in PROC.glob("[0-9]*"))]:
        with suppress(OSError):
            cgroup = (PROC / f"{pid}/cgroup").read_text()
            mounts = (PROC / f"{pid}/ns/mnt").stat().st_ino
            if mounts not in seen and (pid == target.pid or any(m in cgroup for m in marks)):
                seen.add(mounts)
                yield pid


def _written(uid: str) -> tuple[str, ...]:
    """How the kubelet writes the uid of a pod into names of cgroups."""
    return (f"pod{uid}", f"pod{uid.replace('-', '_')}") if uid else ()


def _named(pid: int) -> list[str]:
    """Read which lists a process was told of by its environment."""
    found = []
    for entry in (PROC / f"{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = entry.decode(errors="replace").partition("=")
        if name in NAMED_BY and value.startswith("/"):
            found.append(value)
    return found


def _open_list(root: int, path: str, access: int) -> int | None:
    """Open a file below another root; links in there are followed in there, and never out of it."""
    try:
        descriptor = beneath.open_in(root, path, access)
    except OSError as missing:
        logger(__name__).debug("%s: %s", path, missing.strerror)
        return None
    if os.fstat(descriptor).st_size > LONGEST_BYTES:
        os.close(descriptor)
        return None
    return descriptor


def _file(descriptor: int) -> File:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _of_host(path: str) -> set[File]:
    """Say which file the host itself sees there, and which are its lists wherever shown."""
    found: set[File] = set()
    for pid in _HOSTS:
        with suppress(OSError), beneath.root(pid) as root:
            for one in (*LISTS, path):
                descriptor = _open_list(root, one, os.O_RDONLY)
                if descriptor is not None:
                    found.add(_file(descriptor))
                    os.close(descriptor)
    return found
