"""The REST verbs on stored objects."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp

from squall.api.cluster import NAMESPACE, POD, Object
from squall.api.served import Cause, ServedKind
from squall.kubernetes.embedded.apply import apply
from squall.kubernetes.embedded.deletion import DeleteOptions
from squall.kubernetes.embedded.exchange import (
    JSON,
    Query,
    answer,
    asked_form,
    content_type,
    decode,
    dry_run,
    read_body,
    shown,
    write_options,
)
from squall.kubernetes.embedded.kinds import is_core
from squall.kubernetes.embedded.listing import listed, view_of
from squall.kubernetes.embedded.objects import Edit, Objects, place_of
from squall.kubernetes.embedded.patches import json_patch, merge_patch
from squall.kubernetes.embedded.refusals import (
    bad_request,
    invalid,
    no_such_path,
    success,
    unsupported_body,
    unsupported_method,
)
from squall.kubernetes.embedded.strategic import strategic_patch
from squall.kubernetes.embedded.streams import Stream
from squall.kubernetes.embedded.watch_stream import WatchStream

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_CREATED = 201
_POLICIES = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL below `/api/v1` or `/apis/GROUP/VERSION` leads to."""

    kind: ServedKind
    namespace: str | None
    name: str
    """Empty for the collection."""
    part: str
    """The subresource; empty for the object."""


class Resources:
    """Answers requests for objects and collections; `log` and `exec` of Pods are elsewhere."""

    def __init__(self, objects: Objects, stopping: asyncio.Event) -> None:
        self._objects, self._stopping = objects, stopping

    async def handle(self, request: Request, at: Address) -> ASGIApp:
        """Answer one request.

        Raises:
            ApiError: it is refused.
        """
        on_one: dict[str, _Verb] = {
            "GET": self._get,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        on_many: dict[str, _Verb] = {
            "GET": self._list,
            "POST": self._post,
            "DELETE": self._delete_many,
        }
        if at.part and (at.part != "status" or not at.kind.status):
            raise no_such_path()
        verb = (on_one if at.name else on_many).get(request.method)
        if verb is None or (at.part and request.method == "DELETE"):
            raise unsupported_method()
        return await verb(request, at, Query(request.query_params))

    async def _get(self, request: Request, at: Address, query: Query) -> ASGIApp:
        obj = self._objects.get(at.kind, at.namespace, at.name)
        if query.flag("watch"):
            raise bad_request("watch a collection with fieldSelector=metadata.name=NAME")
        return answer(shown(at.kind, obj, asked_form(request), query.text("includeObject")))

    async def _list(self, request: Request, at: Address, query: Query) -> ASGIApp:
        view, form = view_of(at.kind, at.namespace, query), asked_form(request)
        store = self._objects.store
        if query.flag("watch"):
            watch = WatchStream(store, at.kind, view, query, form)
            return Stream(watch.lines(), JSON, self._stopping, seconds=watch.seconds)
        return answer(listed(store, at.kind, view, query, form))

    async def _post(self, request: Request, at: Address, query: Query) -> ASGIApp:
        options = write_options(request, query)
        obj = decode(await read_body(request), content_type(request))
        created = self._objects.create(at.kind, at.namespace, obj, options)
        form, include = asked_form(request), query.text("includeObject")
        return answer(shown(at.kind, created, form, include), _CREATED, options.warnings)

    async def _put(self, request: Request, at: Address, query: Query) -> ASGIApp:
        options = write_options(request, query)
        obj = decode(await read_body(request), content_type(request))
        edit = _replace(at, obj)
        changed = self._objects.change(at.kind, at.namespace, at.name, edit, options, part=at.part)
        form, include = asked_form(request), query.text("includeObject")
        return answer(shown(at.kind, changed, form, include), warnings=options.warnings)

    async def _patch(self, request: Request, at: Address, query: Query) -> ASGIApp:
        form, options = content_type(request), write_options(request, query)
        patch = decode(await read_body(request), form)
        if form == APPLY:
            return self._apply(request, at, query, patch)
        edit = _edit(at.kind, form, patch)
        changed = self._objects.change(at.kind, at.namespace, at.name, edit, options, part=at.part)
        shape, include = asked_form(request), query.text("includeObject")
        return answer(shown(at.kind, changed, shape, include), warnings=options.warnings)

    def _apply(self, request: Request, at: Address, query: Query, wanted: Any) -> ASGIApp:  # noqa: ANN401
        options, force = write_options(request, query), query.flag("force")
        if not query.text("fieldManager"):
            raise bad_request("fieldManager: Required value: is required for apply patch")
        wanted = _checked_apply(at, wanted)
        place = place_of(at.kind.resource, at.namespace, at.name)
        obj, new = apply(self._objects, at.kind, place, wanted, options, force=force, part=at.part)
        shape, include = asked_form(request), query.text("includeObject")
        answered = shown(at.kind, obj, shape, include)
        return answer(answered, _CREATED if new else 200, options.warnings)

    async def _delete(self, request: Request, at: Address, query: Query) -> ASGIApp:
        options = await _delete_options(request, query)
        place = place_of(at.kind.resource, at.namespace, at.name)
        obj, gone = self._objects.deletion.delete(at.kind.resource, place, options)
        if gone and at.kind.resource != POD:
            return answer(success(at.kind.resource, at.name, obj["metadata"]["uid"]))
        return answer(obj)

    async def _delete_many(self, request: Request, at: Address, query: Query) -> ASGIApp:
        options = await _delete_options(request, query)
        if at.kind.resource == NAMESPACE:  # nobody means that
            raise unsupported_method()
        view, resource = view_of(at.kind, at.namespace, query), at.kind.resource
        content = listed(self._objects.store, at.kind, view, query, "")
        found = orjson.loads(content) if isinstance(content, bytes) else content
        with self._objects.store.transaction(keep=not options.dry_run):
            for obj in found["items"]:
                metadata = obj["metadata"]
                place = place_of(resource, metadata.get("namespace"), metadata["name"])
                if self._objects.store.get(place):  # not gone with one before it
                    self._objects.deletion.delete(resource, place, options)
        return answer(found)


class _Verb(Protocol):
    async def __call__(self, request: Request, at: Address, query: Query) -> ASGIApp: ...


def _replace(at: Address, obj: Any) -> Edit:  # noqa: ANN401  (whatever was sent)
    if not isinstance(obj, dict):
        raise bad_request("the body is not an object")
    metadata = obj.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else ""
    if not version and not is_core(at.kind.resource):
        message = "Invalid value: 0x0: must be specified for an update"
        cause = Cause("metadata.resourceVersion", "FieldValueInvalid", message)
        raise invalid(at.kind.resource, at.name, [cause])
    return lambda _: obj


def _edit(kind: ServedKind, form: str, patch: Any) -> Edit:  # noqa: ANN401  (any JSON value)
    accepted = [JSON_PATCH, MERGE, APPLY] + ([STRATEGIC] if is_core(kind.resource) else [])
    if form not in accepted:
        raise unsupported_body(accepted)
    if form == JSON_PATCH:
        return lambda stored: json_patch(stored, patch)
    if not isinstance(patch, dict):
        raise bad_request("the patch is not an object")
    merge: Callable[[Any, Any], Any] = merge_patch if form == MERGE else strategic_patch
    return lambda stored: merge(stored, patch)


def _checked_apply(at: Address, wanted: Any) -> Object:  # noqa: ANN401  (whatever was sent)
    """Make sure that an applied configuration is an object of this kind and name."""
    resource = at.kind.resource
    if not isinstance(wanted, dict) or not isinstance(wanted.get("metadata", {}), dict):
        raise bad_request("the applied configuration is not an object")
    metadata = {**(wanted.get("metadata") or {})}
    found = (wanted.get("apiVersion"), wanted.get("kind"), metadata.setdefault("name", at.name))
    if found != (resource.api_version, resource.kind, at.name):
        raise bad_request(
            f"the applied configuration is {found}; the URL names "
            f"{(resource.api_version, resource.kind, at.name)}"
        )
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    metadata.pop("managedFields", None)
    return {**wanted, "metadata": metadata}


async def _delete_options(request: Request, query: Query) -> DeleteOptions:
    """Read options from the body, then from the query string."""
    body = await read_body(request)
    sent = decode(body, content_type(request)) if body.strip() else {}
    sent = sent or {}
    preconditions = sent.get("preconditions") or {} if isinstance(sent, dict) else {}
    if not isinstance(sent, dict) or not isinstance(preconditions, dict):
        raise bad_request("the body is no DeleteOptions")
    policy = sent.get("propagationPolicy") or query.text("propagationPolicy")
    if not policy:
        policy = "Orphan" if sent.get("orphanDependents") is True else "Background"
    if policy not in _POLICIES:
        raise bad_request(f'propagationPolicy: Unsupported value: "{policy}"')
    grace = sent.get("gracePeriodSeconds", query.number("gracePeriodSeconds"))
    if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int)):
        raise bad_request(f"gracePeriodSeconds: Invalid value: {grace}: must be a whole number")
    asked = sent.get("dryRun") or []
    if not isinstance(asked, list):
        raise bad_request("dryRun must be a list")
    return DeleteOptions(
        uid=str(preconditions.get("uid") or ""),
        version=str(preconditions.get("resourceVersion") or ""),
        grace_seconds=grace,
        policy=policy,
        dry_run=dry_run([*asked, *query.texts("dryRun")]),
    )
