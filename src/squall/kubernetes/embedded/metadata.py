"""The rules of `apiVersion`, `kind` and `metadata`, which are the same for every kind."""

import re
from typing import Any

from squall.api.cluster import Object, Resource
from squall.api.schema_check import drop_nulls, problems, prune
from squall.api.served import Cause, Schema
from squall.kubernetes.embedded.refusals import bad_request, cannot_be_handled

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
_NUMBER: Schema = {"type": "integer", "format": "int64"}
_MOMENT: Schema = {"type": "string", "format": "date-time"}
_OWNER: Schema = {
    "type": "object",
    "required": ["apiVersion", "kind", "name", "uid"],
    "properties": {
        **dict.fromkeys(("apiVersion", "kind", "name", "uid"), _TEXT),
        **{name: {"type": "boolean"} for name in ("controller", "blockOwnerDeletion")},
    },
}
_MANAGED: Schema = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("manager", "operation", "apiVersion", "fieldsType", "subresource"), _TEXT),
        "time": _MOMENT,
        "fieldsV1": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
OBJECT_META: Schema = {
    "type": "object",
    "description": "Standard object's metadata.",
    "properties": {
        **dict.fromkeys(("name", "generateName", "namespace", "selfLink"), _TEXT),
        **dict.fromkeys(("uid", "resourceVersion"), _TEXT),
        **dict.fromkeys(("generation", "deletionGracePeriodSeconds"), _NUMBER),
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), _MOMENT),
        **dict.fromkeys(("labels", "annotations"), _TEXTS),
        "ownerReferences": {"type": "array", "items": _OWNER},
        "finalizers": {"type": "array", "items": _TEXT},
        "managedFields": {"type": "array", "items": _MANAGED},
    },
}

SET_BY_SERVER = (
    *("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("generation", "selfLink"),
)
"""What a client may send but not choose."""

_LONGEST_NAME = 253
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL_KEY = re.compile(rf"({_SUBDOMAIN}/)?{_LABEL_NAME}")
_LABEL_VALUE = re.compile(rf"({_LABEL_NAME})?")
_NAME = re.compile(_SUBDOMAIN)
_MOST_ANNOTATION_BYTES = 256 * 1024
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    rf"for validation is '{_SUBDOMAIN}')"
)
_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def check_envelope(resource: Resource, obj: Any) -> list[str]:  # noqa: ANN401  (whatever was sent)
    """Make sure that a body is an object of this kind with readable metadata; completes it.

    Returns:
        Fields of the metadata that are unknown; they are removed.

    Raises:
        ApiError: 400, it is not.
    """
    if not isinstance(obj, dict):
        raise cannot_be_handled(resource, "the body is not an object")
    for name, wanted in (("kind", resource.kind), ("apiVersion", resource.api_version)):
        if obj.get(name) not in (None, "", wanted):
            raise bad_request(
                f"the {name} in the data ({obj[name]}) does not match the expected one ({wanted})"
            )
        obj[name] = wanted
    metadata = obj.setdefault("metadata", {})
    if metadata is None:
        metadata = obj["metadata"] = {}
    drop_nulls(OBJECT_META, metadata)
    unknown = prune(OBJECT_META, metadata, "metadata")
    wrong = problems(OBJECT_META, metadata, "metadata")
    if wrong:
        raise cannot_be_handled(resource, "; ".join(map(str, wrong)))
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    return unknown


def metadata_problems(obj: Object) -> list[Cause]:
    """Check names, labels, annotations and finalizers."""
    metadata = obj["metadata"]
    found = _name_problems(metadata.get("name", ""))
    for name, value in (metadata.get("labels") or {}).items():
        if not _LABEL_KEY.fullmatch(name):
            found.append(_wrong("metadata.labels", name, "name part must be a qualified name"))
        if not _LABEL_VALUE.fullmatch(value):
            found.append(_wrong("metadata.labels", value, _LABEL_RULE))
    annotations = metadata.get("annotations") or {}
    for name in annotations:
        if not _LABEL_KEY.fullmatch(name.lower()):
            found.append(_wrong("metadata.annotations", name, "must be a qualified name"))
    if sum(len(k) + len(v) for k, v in annotations.items()) > _MOST_ANNOTATION_BYTES:
        message = f"Too long: may not be more than {_MOST_ANNOTATION_BYTES} bytes"
        found.append(Cause("metadata.annotations", "FieldValueTooLong", message))
    for name in metadata.get("finalizers") or []:
        if not _LABEL_KEY.fullmatch(name):
            found.append(_wrong("metadata.finalizers", name, "must be a qualified name"))
    return found


def _name_problems(name: str) -> list[Cause]:
    if not name:
        why = "Required value: name or generateName is required"
        return [Cause("metadata.name", "FieldValueRequired", why)]
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        return [_wrong("metadata.name", name, _NAME_RULE)]
    return []


def _wrong(path: str, value: str, why: str) -> Cause:
    return Cause(path, "FieldValueInvalid", f'Invalid value: "{value}": {why}')
