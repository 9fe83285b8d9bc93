"""What the API says when it refuses, in the words of a Kubernetes API server."""

from collections.abc import Sequence
from typing import Any

from squall.api.cluster import AlreadyExists, ApiError, Conflict, NotFound, Object, Resource
from squall.api.served import Cause

GONE = "the server could not find the requested resource"


def qualified(resource: Resource) -> str:
    """Name a kind as messages and the store do: `plural.group`."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def status(refused: ApiError) -> Object:
    """Encode a refusal as the Status that goes over the wire."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refused.message,
        "reason": refused.reason,
        **({"details": dict(refused.details)} if refused.details else {}),
        "code": refused.code,
    }


def success(resource: Resource, name: str, uid: str) -> Object:
    """Encode that something is done; `kubectl delete` waits for the uid named here."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _about(resource, name) | {"uid": uid},
    }


def not_found(resource: Resource, name: str) -> NotFound:
    """404: no object of that name."""
    message = f'{qualified(resource)} "{name}" not found'
    return NotFound(404, "NotFound", message, _about(resource, name))


def no_such_path() -> NotFound:
    """404: no such kind, subresource or document."""
    return NotFound(404, "NotFound", GONE)


def already_exists(resource: Resource, name: str) -> AlreadyExists:
    """409: the name is taken."""
    message = f'{qualified(resource)} "{name}" already exists'
    return AlreadyExists(409, "AlreadyExists", message, _about(resource, name))


def conflict(resource: Resource, name: str, why: str = "") -> Conflict:
    """409: the object is not the one the caller had seen."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}'
    return Conflict(409, "Conflict", message, _about(resource, name))


def apply_conflict(causes: Sequence[Cause]) -> Conflict:
    """409: other managers own what a server-side apply would change."""
    listed = ", ".join(f"{cause.message}: {cause.field}" for cause in causes)
    plural = "s" if len(causes) > 1 else ""
    message = f"Apply failed with {len(causes)} conflict{plural}: {listed}"
    return Conflict(409, "Conflict", message, {"causes": _wire(causes)})


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422: the object breaks rules of its kind."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    said = [f"{c.field}: {c.message}" if c.field else c.message for c in causes]
    listed = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    details = _about(resource, name) | {"kind": resource.kind, "causes": _wire(causes)}
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details)


def bad_request(message: str) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def cannot_be_handled(resource: Resource, why: str) -> ApiError:
    """400: the body is not an object of this kind."""
    return bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a '
        f"{resource.kind}: {why}"
    )


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """403: not now, or not at all."""
    message = f'{qualified(resource)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _about(resource, name))


def unauthorized() -> ApiError:
    """401: no token, or a wrong one."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def unsupported_method() -> ApiError:
    """405: no such verb here."""
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def unsupported_body(accepted: Sequence[str]) -> ApiError:
    """415: the body's content type is not one of `accepted`."""
    return ApiError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def cannot_be_processed() -> ApiError:
    """422: a patch that cannot be carried out."""
    return ApiError(
        422, "Invalid", "the server rejected our request due to an error in our request"
    )


def expired(message: str) -> ApiError:
    """410: the version lies before what the log still holds."""
    return ApiError(410, "Expired", message)


def too_old(version: int, compacted: int) -> ApiError:
    """410 of a watch."""
    return expired(f"too old resource version: {version} ({compacted + 1})")


def too_large(found_bytes: int, most_bytes: int) -> ApiError:
    """413: the body or object is larger than a cluster would take."""
    return ApiError(
        413,
        "RequestEntityTooLarge",
        f"Request entity too large: {found_bytes} bytes; the limit is {most_bytes}",
    )


def cannot_be_stored(why: str) -> ApiError:
    """Nothing can be written now."""
    return internal(f"the store cannot be written: {why}; see to its disk")


def internal(what: str) -> ApiError:
    """500: our mistake."""
    return ApiError(500, "InternalError", f"Internal error occurred: {what}")


def _about(resource: Resource, name: str) -> dict[str, Any]:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return {key: value for key, value in details.items() if value}


def _wire(causes: Sequence[Cause]) -> list[dict[str, str]]:
    return [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
