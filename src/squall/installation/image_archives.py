"""Images out of whatever keeps images on this machine."""

import shutil
import subprocess
from pathlib import Path

KEEPERS: dict[str, tuple[str, ...]] = {
    "podman": ("podman", "image", "save", "--format=docker-archive", "--output={file}", "{image}"),
    "buildah": ("buildah", "push", "--quiet", "{image}", "docker-archive:{file}:{image}"),
    "ctr": ("ctr", "--namespace=k8s.io", "images", "export", "{file}", "{image}"),
}
"""Program -> how it writes an image that it has into a file; none of them asks a registry."""


def save(image: str, folder: Path) -> Path | None:
    """Write an image into a file of `folder`; None where no program here has it.

    Args:
        image: its name.
        folder: must exist.
    """
    target = folder / f"{image.replace('/', '_').replace(':', '_')}.tar"
    for program, words in KEEPERS.items():
        if shutil.which(program) is None:
            continue
        command = [word.format(file=target, image=image) for word in words]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0 and target.is_file():
            return target
        target.unlink(missing_ok=True)
    return None
