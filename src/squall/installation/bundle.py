"""One archive with all that an installation takes, for sites that reach no registry."""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from squall.api.cluster import Object
from squall.errors import InvalidFault
from squall.installation.manifests import TEMPLATES, Packaged, as_yaml, definitions, images, objects
from squall.installation.settings import Settings, policy_of

TOP = "squall-bundle"
"""Folder that the archive unpacks to."""
SUMS, IMAGES, VERSION, README = "SHA256SUMS", "images.txt", "VERSION", "README.md"
TEMPLATE_FOLDER, DEFINITIONS_FOLDER = "manifests/templates", "crds"
CHUNK_BYTES = 1 << 20
REPOSITORY = Path(__file__).parents[3]

_README = """# Squall {version}, for a site that reaches no registry

1. Load the images on every node, or push them to your own registry:

       ctr --namespace k8s.io images import images/<file>.tar

   `images.txt` names them all.
2. Install, with `squall` {version} on a machine that reaches the cluster's API:

       squall install --bundle squall-bundle.tar

   or, without it, `kubectl apply --server-side -f manifests/squall.yaml`, or with Helm
   `helm install squall chart/squall --namespace squall --create-namespace`.
   Images under another name: `--image` and `--pause-image`.

`sha256sum --check SHA256SUMS` says whether all of it arrived.
"""


def write(target: Path, settings: Settings, archives: Sequence[Path]) -> list[str]:
    """Write the archive, the same one for the same input.

    Args:
        target: where to.
        settings: names the images; the manifests are written for it, too.
        archives: of images, as `docker save` and `ctr images export` make them.

    Returns:
        What is in it, by path below its top folder.

    Raises:
        OSError: something cannot be read or written.
    """
    content = dict(_content(settings))
    paths = {f"images/{path.name}": path for path in archives}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    sums |= {name: _digest(path) for name, path in paths.items()}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    content[SUMS] = lines.encode()
    with tarfile.open(target, "w") as archive:
        for name in sorted([*content, *paths]):
            entry = tarfile.TarInfo(f"{TOP}/{name}")
            entry.mode = 0o644
            if name in paths:
                entry.size = paths[name].stat().st_size
                with paths[name].open("rb") as file:
                    archive.addfile(entry, file)
            else:
                entry.size = len(content[name])
                archive.addfile(entry, io.BytesIO(content[name]))
    return sorted([*content, *paths])


class Bundle:
    """An archive that `write` made, as a source of manifests.

    Args:
        path: of the archive; every file in it is held against its checksum at once.

    Raises:
        InvalidFault: it is no bundle, or was damaged; names the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tarfile.open(path) as archive:
                self._content = self._checked(archive)
        except tarfile.TarError as broken:
            raise InvalidFault(f"{path} is no bundle of squall: {broken}") from broken

    @property
    def version(self) -> str:
        """Of the Squall in it."""
        return self._content[VERSION].decode().strip()

    def template(self, name: str) -> str:
        """Read one file of manifests with placeholders."""
        return self._content[f"{TEMPLATE_FOLDER}/{name}"].decode()

    def definitions(self) -> list[Object]:
        """Give the definition of every kind."""
        found = (d for n, d in self._content.items() if n.startswith(f"{DEFINITIONS_FOLDER}/"))
        return [yaml.safe_load(data) for data in found]

    def _checked(self, archive: tarfile.TarFile) -> Mapping[str, bytes]:
        content, digests = {}, {}
        for entry in archive:
            file = archive.extractfile(entry)
            if file is None:
                continue
            name, digest = entry.name.removeprefix(f"{TOP}/"), hashlib.sha256()
            kept = not name.startswith("images/")
            parts = []
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                if kept:
                    parts.append(chunk)
            digests[name] = digest.hexdigest()
            if kept:
                content[name] = b"".join(parts)
        if not {SUMS, VERSION} <= content.keys():
            raise InvalidFault(f"{self._path} is no bundle of squall: it lacks {SUMS} or {VERSION}")
        for line in content[SUMS].decode().splitlines():
            wanted, _, name = line.partition("  ")
            if digests.get(name) != wanted:
                what = "was changed" if name in digests else "is missing"
                raise InvalidFault(f"{self._path}: {name} {what}; fetch the bundle again")
        return content


def _content(settings: Settings) -> Iterator[tuple[str, bytes]]:
    policy = policy_of(settings.namespace)
    wanted = objects(replace(settings, policy=policy))
    source = Packaged()
    yield README, _README.format(version=version("squall")).encode()
    yield VERSION, f"{version('squall')}\n".encode()
    yield IMAGES, "".join(f"{image}\n" for image in images(objects(settings))).encode()
    yield "manifests/squall.yaml", as_yaml(wanted).encode()
    for name in TEMPLATES:
        yield f"{TEMPLATE_FOLDER}/{name}", source.template(name).encode()
    for obj in definitions():
        yield f"{DEFINITIONS_FOLDER}/{obj['metadata']['name']}.yaml", as_yaml([obj]).encode()
    for name, data in _files(_chart()):
        yield f"chart/squall/{name}", data


def _chart() -> Traversable:
    """Find the chart: in an installed package beside this file, else in the checkout."""
    packaged = files("squall.installation").joinpath("chart")
    return packaged if packaged.is_dir() else REPOSITORY / "deploy/helm/squall"


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _files(entry, f"{below}{entry.name}/")
        else:
            yield f"{below}{entry.name}", entry.read_bytes()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
