"""Options that several verbs share."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml

from squall.api.cluster import Object
from squall.cli.parts import DEFAULT_DATA_DIRECTORY, Parts
from squall.cli.resources import refuse_unknown_fields
from squall.errors import InvalidFault

T = TypeVar("T")

Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="Which API. Else $KUBECONFIG, else that of `squall up` on this host."),
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the objects.")]
DataDirectory = Annotated[
    Path, typer.Option("--data-dir", help="Folder of objects, journal, logs and kubeconfig.")
]
ManifestFile = Annotated[
    Path, typer.Option("--file", "-f", help="YAML manifest, of one or several documents.")
]
DATA_DIRECTORY = DEFAULT_DATA_DIRECTORY


def address(text: str) -> str:
    """Check `ADDRESS:PORT`; empty is left to whoever asked.

    Raises:
        BadParameter: it is neither.
    """
    _, colon, port = text.rpartition(":")
    if text and not (colon and port.isdigit()):
        raise typer.BadParameter(f"{text!r} is not ADDRESS:PORT, such as 0.0.0.0:9443")
    return text


def parts_of(context: typer.Context) -> Parts:
    """Give what `squall.app` put there for the verbs."""
    parts: Parts = context.obj
    return parts


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run one verb's work to its end."""
    return asyncio.run(work)


def documents(path: Path) -> list[Object]:
    """Read the objects of a manifest.

    Raises:
        InvalidFault: not YAML, empty, or a document that is no Kubernetes object.
        OSError: it cannot be read.
    """
    try:
        found = [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
    except yaml.YAMLError as mistake:
        raise InvalidFault(f"{path} is not YAML: {mistake}") from mistake
    if not found:
        raise InvalidFault(f"{path} holds no object")
    for document in found:
        if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= set(
            document
        ):
            raise InvalidFault(f"{path}: a document lacks apiVersion, kind or metadata")
    return found


def wanted(path: Path) -> list[Object]:
    """Read the objects of a manifest that are asked for, and nothing that nobody would understand.

    Raises:
        InvalidFault: as `documents`; or one says something that its kind has no field for.
        OSError: it cannot be read.
    """
    found = documents(path)
    for obj in found:
        refuse_unknown_fields(obj)
    return found
