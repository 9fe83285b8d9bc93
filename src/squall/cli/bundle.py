"""`squall bundle` and `squall images`: for sites that reach no registry."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from squall.installation.bundle import write
from squall.installation.image_archives import save
from squall.installation.manifests import images as images_of
from squall.installation.manifests import objects
from squall.installation.settings import PAUSE_IMAGE, Settings, default_image

Image = Annotated[str, typer.Option(help="Of controller and agents; else `squall:` and version.")]
PauseImage = Annotated[str, typer.Option(help="What containers run while a pod-failure is live.")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(bundle)
    app.command()(images)


def bundle(
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write.")] = Path(
        "squall-bundle.tar"
    ),
    image_archive: Annotated[
        list[Path] | None,
        typer.Option(help="An archive of images to put in; may be repeated."),
    ] = None,
    image: Image = "",
    pause_image: PauseImage = PAUSE_IMAGE,
) -> None:
    """Write all that an installation takes into one archive.

    Chart, manifests, definitions, the list of images, checksums; and the images themselves, those
    that are given or that podman, buildah or ctr has here. No registry is asked.
    """
    settings = Settings(image=image or default_image(), pause_image=pause_image)
    with tempfile.TemporaryDirectory(prefix="squall-bundle-") as folder:
        archives, lacking = list(image_archive or ()), []
        if not archives:
            for name in images_of(objects(settings)):
                saved = save(name, Path(folder))
                lacking += [] if saved else [name]
                archives += [saved] if saved else []
        names = write(output, settings, archives)
    typer.echo(f"{output}: {len(names)} files, {len(archives)} of them archives of images")
    for name in lacking:
        typer.echo(f"{name} is not in it: nothing here has it; give it with --image-archive")


def images(image: Image = "", pause_image: PauseImage = PAUSE_IMAGE) -> None:
    """List every image that an installation names."""
    settings = Settings(image=image or default_image(), pause_image=pause_image)
    for name in images_of(objects(settings)):
        typer.echo(name)
