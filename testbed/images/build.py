"""Builds the project's images with buildah; what was built from the same content stays."""

import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from testbed.images.base import base, write_apt
from testbed.images.cache import cache_folder, carry_out, content, fingerprint, kept
from testbed.images.wheels import ROOT, dependencies, product, requirements

SQUALL = f"squall:{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
"""The image of controller and agent, as the chart calls it by default."""
TOOLS = "registry.local/tools:1"
"""What targets of tests run: python3, curl, iperf3, ping."""
_BUILDAH = "root and Debian's buildah"
_LONG_AGO = 1_000_000_000
"""Seconds since 1970: one time for all files, so that layers depend on content alone."""


def missing() -> list[str]:
    """Name what a build would need and this machine has not; empty when all is there."""
    needs = {"buildah": "buildah", "debootstrap": "debootstrap", "cargo": "rustup"}
    lacking = [
        f"{program} (Debian: {package})"
        for program, package in needs.items()
        if shutil.which(program) is None
    ]
    return lacking if os.geteuid() == 0 else [*lacking, "root"]


def squall_image() -> Path:
    """Build the image of controller and agent; return its docker-archive.

    Raises:
        RuntimeError: something is missing, or a step failed; says which and what it needs.
    """
    pinned = requirements()
    context: dict[str, list[Path]] = {
        "wheels/dependencies": sorted((dependencies(pinned) / "wheels").iterdir()),
        "wheels/product": product(),
    }
    return _image("squall", SQUALL, ROOT / "deploy/Containerfile", context, pinned)


def tools_image() -> Path:
    """Build the image that targets of tests run; return its docker-archive.

    Raises:
        RuntimeError: as `squall_image`.
    """
    return _image("tools", TOOLS, Path(__file__).with_name("tools.Containerfile"), {}, "")


def _image(
    name: str, reference: str, recipe: Path, context: Mapping[str, list[Path]], pinned: str
) -> Path:
    if lacking := missing():
        raise RuntimeError(f"images need {', '.join(lacking)}")
    root = base()
    wheels = [fingerprint(where, content(files)) for where, files in context.items()]
    made_from = fingerprint(reference, recipe.read_bytes(), root.name, pinned, *wheels)

    def build(made: Path) -> None:
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".context-") as scratch:
            folder, apt = Path(scratch, "context"), Path(scratch, "apt")
            _lay_out(folder, context, pinned)
            apt.mkdir()
            write_apt(apt)
            _buildah(
                "build",
                *("--layers", "--isolation=chroot", "--timestamp", str(_LONG_AGO)),
                *("--build-arg", f"BASE={_imported(root)}", f"--volume={apt}:/etc/apt:ro"),
                *("--file", str(recipe), "--tag", reference, str(folder)),
            )
        _buildah("push", "--quiet", reference, f"docker-archive:{made}:{reference}")

    return kept(f"{name}.tar", made_from, build)


def _lay_out(folder: Path, context: Mapping[str, list[Path]], pinned: str) -> None:
    """Link what a Containerfile copies into one folder."""
    folder.mkdir()
    (folder / "requirements.txt").write_text(pinned)
    for where, files in context.items():
        (folder / where).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / where / file.name)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (_LONG_AGO, _LONG_AGO))


def _imported(root: Path) -> str:
    """Make an image of a root folder, unless there is one; return its name."""
    reference = f"localhost/base:{root.name.partition('@')[2]}"
    if _buildah("images", "--quiet", "--filter", f"reference={reference}").strip():
        return reference
    container = _buildah("from", "scratch").strip()
    try:
        _buildah("copy", "--quiet", container, str(root), "/")
        _buildah("commit", "--quiet", "--timestamp", str(_LONG_AGO), container, reference)
    finally:
        _buildah("rm", container)
    return reference


def _buildah(*arguments: str) -> str:
    storage = cache_folder() / "storage"
    places = ["--root", str(storage / "root"), "--runroot", str(storage / "run")]
    return carry_out(["buildah", *places, *arguments], needs=_BUILDAH)
