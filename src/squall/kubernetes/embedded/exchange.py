"""Requests read and answers written, as Kubernetes' clients expect them."""

from collections.abc import Sequence
from typing import Any

import orjson
import yaml
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from squall.api.cluster import ApiError, Object
from squall.api.served import ServedKind
from squall.kubernetes.embedded import protobuf
from squall.kubernetes.embedded.admission import WriteOptions
from squall.kubernetes.embedded.refusals import bad_request, status, too_large, unsupported_body
from squall.kubernetes.embedded.tables import partial, table

LARGEST_BODY_BYTES = 3 * 1024 * 1024
"""As a Kubernetes API server has it."""
JSON, YAML = "application/json", "application/yaml"
_APPLY = "application/apply-patch+yaml"
_MOST_WARNING_LETTERS = 4096
_BOOLEANS = {"": False, "true": True, "1": True, "false": False, "0": False}


class Query:
    """The query string of a request; what cannot be read is a 400 that names it."""

    def __init__(self, parameters: QueryParams) -> None:
        self._parameters = parameters

    def text(self, name: str) -> str:
        """Read one value; empty when absent."""
        return str(self._parameters.get(name, ""))

    def texts(self, name: str) -> list[str]:
        """Read all values of a name, in order."""
        return [str(value) for value in self._parameters.getlist(name)]

    def number(self, name: str) -> int | None:
        """Read a whole number that is not negative."""
        value = self.text(name)
        if not value:
            return None
        if not (value.isascii() and value.isdigit()) or int(value) >= 1 << 63:
            raise bad_request(f'{name}: Invalid value: "{value}": must be a whole number')
        return int(value)

    def flag(self, name: str) -> bool:
        """Read a boolean."""
        value = self.text(name)
        if value.lower() not in _BOOLEANS:
            raise bad_request(f'{name}: Invalid value: "{value}": must be true or false')
        return _BOOLEANS[value.lower()]


def write_options(request: Request, query: Query) -> WriteOptions:
    """Read how a client wants its write to be done."""
    validation = query.text("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(
            f'fieldValidation: Unsupported value: "{validation}": '
            'supported values: "Ignore", "Strict", "Warn"'
        )
    agent = request.headers.get("user-agent", "unknown").partition("/")[0]
    return WriteOptions(
        manager=(query.text("fieldManager") or agent)[:128],
        dry_run=dry_run(query.texts("dryRun")),
        field_validation=validation,
    )


def dry_run(asked: Sequence[Any]) -> bool:
    """Read a dry-run option, whose only value is `All`."""
    for value in asked:
        if value not in ("", "All"):
            raise bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return "All" in asked


async def read_body(request: Request) -> bytes:
    """Read a body, and stop where it is larger than any object could be.

    Raises:
        ApiError: 413; or 400, the client went away.
    """
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY_BYTES:
                raise too_large(size, LARGEST_BODY_BYTES)
            parts.append(part)
    except ClientDisconnect as gone:
        raise bad_request("the client went away before its body ended") from gone
    return b"".join(parts)


def content_type(request: Request) -> str:
    """Read the type of a body, without parameters."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip() or JSON


def decode(body: bytes, form: str) -> Any:  # noqa: ANN401  (any JSON value)
    """Decode a body of an object or a patch.

    Raises:
        ApiError: 415, its type is not spoken here; 400, it is damaged.
    """
    if form == protobuf.CONTENT_TYPE:
        return protobuf.decode(body)
    if not form.endswith(("json", "yaml")):
        raise unsupported_body([JSON, YAML, protobuf.CONTENT_TYPE])
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        if form not in (YAML, _APPLY):
            raise bad_request(f"couldn't get version/kind; json parse error: {wrong}") from wrong
    return _from_yaml(body)


def _from_yaml(body: bytes) -> Any:  # noqa: ANN401  (any JSON value)
    try:
        if any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(body, yaml.CSafeLoader)):
            raise bad_request("aliases are not accepted in YAML: write the value out")
        return orjson.loads(orjson.dumps(yaml.load(body, yaml.CSafeLoader)))
    except (yaml.YAMLError, TypeError, ValueError) as wrong:
        raise bad_request(f"yaml parse error: {wrong}") from wrong


def asked_form(request: Request) -> str:
    """Read how objects shall be shown.

    Returns:
        Table, PartialObjectMetadata or PartialObjectMetadataList; empty for whole objects.
    """
    for choice in request.headers.get("accept", "").split(","):
        parameters = dict(part.strip().partition("=")[::2] for part in choice.split(";")[1:])
        if "as" in parameters and parameters.get("v", "v1") in ("v1", "v2"):
            return parameters["as"]
        if choice.strip() in (JSON, "*/*"):
            break
    return ""


def answer(content: Any, code: int = 200, warnings: Sequence[str] = ()) -> Response:  # noqa: ANN401
    """Answer with JSON; bytes are taken as already encoded."""
    encoded = content if isinstance(content, bytes) else orjson.dumps(content)
    response = Response(encoded, code, media_type=JSON)
    room = _MOST_WARNING_LETTERS
    for warning in warnings:
        plain = warning.encode("ascii", "backslashreplace").decode()
        said = "".join(letter if letter.isprintable() else "?" for letter in plain)
        quoted = said.replace("\\", "\\\\").replace('"', '\\"')
        room -= len(quoted)
        if room < 0:
            break
        response.headers.append("warning", f'299 - "{quoted}"')
    return response


def refuse(refused: ApiError) -> Response:
    """Answer with the Status of a refusal."""
    response = answer(status(refused), refused.code)
    if refused.code == 401:  # noqa: PLR2004  (Unauthorized)
        response.headers["www-authenticate"] = "Bearer"
    return response


def shown(kind: ServedKind, obj: Object, form: str, include: str) -> Object:
    """Put one object into the form that was asked for."""
    if form == "Table":
        version = obj["metadata"].get("resourceVersion", "")
        return table(kind, [obj], {"resourceVersion": version}, include=include)
    return partial(obj) if form == "PartialObjectMetadata" else obj
