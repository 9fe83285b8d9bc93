"""OpenAPI v3 of the served kinds: what `kubectl` needs for apply, edit and explain."""

from copy import deepcopy
from hashlib import sha256
from typing import Any

import orjson

from squall.api.served import Schema, ServedKind
from squall.kubernetes.embedded.kinds import Kinds, is_core
from squall.kubernetes.embedded.metadata import OBJECT_META

_META_NAME = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_META_REFERENCE = {"$ref": f"#/components/schemas/{_META_NAME}"}
_JSON = "application/json"
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")

VERSION_2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

Document = dict[str, Any]


class OpenApi:
    """The documents of one set of kinds; each is encoded once, when it is first asked for."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._encoded: dict[str, bytes] = {}

    def index(self) -> Document:
        """Answer `/openapi/v3`; the hash lets clients keep documents until they change."""
        return {
            "paths": {
                path: {
                    "serverRelativeURL": f"/openapi/v3/{path}?hash="
                    + sha256(self.document(path) or b"").hexdigest()[:32].upper()
                }
                for path in map(_path_of, self._kinds.group_versions())
            }
        }

    def document(self, path: str) -> bytes | None:
        """Answer `/openapi/v3/PATH`, encoded; None when nothing is served there."""
        if path not in self._encoded:
            for group, version in self._kinds.group_versions():
                if _path_of((group, version)) == path:
                    kinds = self._kinds.in_group(group, version)
                    self._encoded[path] = orjson.dumps(_document(kinds))
        return self._encoded.get(path)


def version_2() -> bytes:
    """Answer `/openapi/v2` in protobuf: a document of no kinds.

    Clients look there for what version 3 does not have, and take 404 for a broken server.
    """
    title, version = b"\x0a\x06Squall", b"\x12\x02v1"
    return b"\x0a\x032.0" + b"\x12" + bytes([len(title + version)]) + title + version


def _path_of(group_version: tuple[str, str]) -> str:
    group, version = group_version
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _document(kinds: list[ServedKind]) -> Document:
    paths: Document = {}
    schemas: Document = {_META_NAME: OBJECT_META}
    for kind in kinds:
        paths |= _paths(kind)
        schemas[_schema_name(kind)] = _schema(kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Squall", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(kind: ServedKind) -> str:
    group = ".".join(reversed(kind.resource.group.split("."))) or "io.k8s.api.core"
    return f"{group}.{kind.resource.version}.{kind.resource.kind}"


def _schema(kind: ServedKind) -> Schema:
    schema = deepcopy(kind.schema)
    text: Schema = {"type": "string"}
    schema["properties"] = {
        **schema.get("properties", {}),
        "apiVersion": text | {"description": f"Always {kind.resource.api_version}."},
        "kind": text | {"description": f"Always {kind.resource.kind}."},
        "metadata": {"allOf": [_META_REFERENCE], "description": OBJECT_META["description"]},
    }
    schema["x-kubernetes-group-version-kind"] = [_identity(kind)]
    return schema


def _identity(kind: ServedKind) -> Document:
    resource = kind.resource
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _paths(kind: ServedKind) -> Document:
    resource = kind.resource
    namespace = "/namespaces/{namespace}" if resource.namespaced else ""
    where = _path_of((resource.group, resource.version))
    many = f"/{where}{namespace}/{resource.plural}"
    named = ["name"] + (["namespace"] if resource.namespaced else [])
    one = {
        "parameters": [_path_parameter(name) for name in named],
        "get": _operation(kind, "get"),
        "put": _operation(kind, "put", (_JSON,), _WRITE_PARAMETERS),
        # no strategic merge patch here: for its own kinds kubectl then merges by its own types
        "patch": _operation(kind, "patch", (_MERGE, _APPLY), _WRITE_PARAMETERS),
        "delete": _operation(kind, "delete", (), ("dryRun", "propagationPolicy")),
    }
    return {
        many: {
            "parameters": [_path_parameter(name) for name in named[1:]],
            "get": _operation(kind, "list", (), ("labelSelector", "fieldSelector", "limit")),
            "post": _operation(kind, "post", (_JSON,), _WRITE_PARAMETERS),
        },
        f"{many}/{{name}}": one,
    }


def _operation(
    kind: ServedKind, action: str, body: tuple[str, ...] = (), query: tuple[str, ...] = ()
) -> Document:
    reference = {"$ref": f"#/components/schemas/{_schema_name(kind)}"}
    operation: Document = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _identity(kind),
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in query
        ],
        "responses": {"200": {"description": "OK"}},
    }
    if body:
        content = {
            form: {} if is_core(kind.resource) or form != _JSON else {"schema": reference}
            for form in body
        }
        operation["requestBody"] = {"content": content}
    return operation


def _path_parameter(name: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
