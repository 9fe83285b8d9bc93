"""Container images as docker-archives, made from folders without a registry."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write(
    archive: Path,
    reference: str,
    root: Path,
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Write an image of one layer; equal folders give equal bytes.

    Args:
        archive: the tar to write, for `ctr images import` or `podman load`.
        reference: what it is called, as NAME:TAG.
        root: folder that becomes the container's file system, owned by root there.
        entrypoint: program that a container runs.
        command: what it runs, or the entrypoint's arguments, unless the pod says other.
        environment: variables besides PATH.
    """
    layer = _layer(root)
    variables = {"PATH": PATH, **(environment or {})}
    config = _document(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint) or None,
                "Cmd": list(command) or None,
                "Env": [f"{name}={value}" for name, value in variables.items()],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
            "history": [{"created_by": "squall testbed"}],
        }
    )
    names = {"config": f"{_digest(config)}.json", "layer": f"{_digest(layer)}/layer.tar"}
    manifest = [{"Config": names["config"], "RepoTags": [reference], "Layers": [names["layer"]]}]
    with tarfile.open(archive, "w") as tar:
        for name, data in (
            (names["config"], config),
            (names["layer"], layer),
            ("manifest.json", _document(manifest)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _layer(root: Path) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=_nobodys)
    return layer.getvalue()


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Forget who made a file and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def _document(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
