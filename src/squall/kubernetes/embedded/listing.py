"""Lists: selected, in pages, in the form that was asked for."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from typing import Any

import orjson

from squall.api.cluster import Object
from squall.api.served import ServedKind
from squall.kubernetes.embedded.exchange import Query
from squall.kubernetes.embedded.refusals import bad_request, expired, qualified
from squall.kubernetes.embedded.selectors import field_test, label_test
from squall.kubernetes.embedded.store import Store
from squall.kubernetes.embedded.tables import partial, table
from squall.kubernetes.embedded.watching import View

_START = ("", "")


def view_of(kind: ServedKind, namespace: str | None, query: Query) -> View:
    """Read the selectors of a list or watch.

    Raises:
        ApiError: 400, they cannot be read.
    """
    tests = (
        label_test(query.text("labelSelector")),
        field_test(query.text("fieldSelector"), kind.fields),
    )
    return View(namespace, tuple(test for test in tests if test))


def listed(store: Store, kind: ServedKind, view: View, query: Query, form: str) -> Object | bytes:
    """Answer a list request; bytes are already encoded.

    A later page shows what is there now, under the version of the first page: a watch from that
    version replays what changed in between.

    Raises:
        ApiError: 400, a parameter cannot be read; 410, the first page is too long ago.
    """
    key, limit = qualified(kind.resource), query.number("limit") or 0
    version, after = _page(store, key, query.text("continue"))
    most = limit + 1 if limit and not view.tests else -1
    bodies = store.bodies(key, view.namespace, after=after, limit=most)
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if not (view.tests or limit or form):
        return _joined(kind, metadata, bodies)
    objects = [obj for body in bodies if view.shows(obj := orjson.loads(body))]
    if limit and len(objects) > limit:
        objects = objects[:limit]
        last = objects[-1]["metadata"]
        end = (last.get("namespace", ""), last["name"])
        metadata["continue"] = urlsafe_b64encode(orjson.dumps([version, *end])).decode()
        if not view.tests:
            metadata["remainingItemCount"] = store.count(key, view.namespace, after=end)
    if form == "Table":
        return table(kind, objects, metadata, include=query.text("includeObject"))
    about = {"kind": f"{kind.resource.kind}List", "apiVersion": kind.resource.api_version}
    if form == "PartialObjectMetadataList":
        about = {"kind": form, "apiVersion": "meta.k8s.io/v1"}
        objects = [partial(obj) for obj in objects]
    return {**about, "metadata": metadata, "items": objects}


def _joined(kind: ServedKind, metadata: dict[str, Any], bodies: list[bytes]) -> bytes:
    """Build a list from encoded objects: a large one must not hold up everybody else."""
    head = {
        "kind": f"{kind.resource.kind}List",
        "apiVersion": kind.resource.api_version,
        "metadata": metadata,
    }
    return orjson.dumps(head)[:-1] + b',"items":[' + b",".join(bodies) + b"]}"


def _page(store: Store, key: str, token: str) -> tuple[int, tuple[str, str]]:
    """Read where a page begins: the version of the first one, and the last object before it."""
    if not token:
        return store.version, _START
    try:
        version, namespace, name = orjson.loads(urlsafe_b64decode(token))
        version, after = int(version), (str(namespace), str(name))
    except (ValueError, TypeError, NotBase64) as wrong:
        raise bad_request("continue key is not valid") from wrong
    if version < store.forgotten(key) or version > store.version:
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. "
            "You must start a new list without the continue parameter."
        )
    return version, after
