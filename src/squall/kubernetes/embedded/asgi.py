"""The API over HTTP: who may ask, and who answers what."""

import asyncio
from hmac import compare_digest

import orjson
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from squall.api.cluster import POD, ApiError
from squall.kubernetes.embedded import discovery, reviews
from squall.kubernetes.embedded.container_logs import container_of, logs
from squall.kubernetes.embedded.exchange import (
    Query,
    answer,
    asked_form,
    content_type,
    decode,
    read_body,
    refuse,
)
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.openapi import VERSION_2_TYPE, OpenApi, version_2
from squall.kubernetes.embedded.refusals import (
    bad_request,
    internal,
    no_such_path,
    status,
    unauthorized,
    unsupported_method,
)
from squall.kubernetes.embedded.remote_commands import (
    NEEDS_WEBSOCKET,
    RemoteCommand,
    protocol_of,
)
from squall.kubernetes.embedded.resources import Address, Resources
from squall.kubernetes.embedded.runtime import Runtime
from squall.metrics import REGISTRY
from squall.telemetry import logger

OPEN_PATHS = frozenset({"/version", "/healthz", "/livez", "/readyz"})
"""They tell nothing worth a token."""

_LOG = logger(__name__)


class KubernetesApi:
    """An ASGI application that speaks the Kubernetes API over one store.

    Args:
        objects: the verbs.
        token: what a client must show as its bearer token.
        runtime: the containers behind the Pods.
    """

    def __init__(self, objects: Objects, token: str, runtime: Runtime) -> None:
        self._objects, self._runtime = objects, runtime
        self._kinds = objects.kinds
        self._authorization = f"Bearer {token}".encode()
        self.stopping = asyncio.Event()
        """Set it to end all watches, logs and commands."""
        self._resources = Resources(objects, self.stopping)
        self._openapi = OpenApi(objects.kinds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] == "websocket":
            await self._serve_socket(WebSocket(scope, receive, send))
            return
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served; turn it off in the server")
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
            await response(scope, receive, send)
        except ApiError as refused:
            await refuse(refused)(scope, receive, send)
        except RecursionError:
            await refuse(bad_request("the body is nested too deeply"))(scope, receive, send)
        except Exception as bug:  # noqa: BLE001  (one request's bug is not everybody's)
            _LOG.exception("%s %s failed", request.method, request.url.path)
            await refuse(internal(type(bug).__name__))(scope, receive, send)

    async def _respond(self, request: Request) -> ASGIApp:
        path = request.scope["path"].rstrip("/") or "/"
        if path in OPEN_PATHS:
            return _about_the_server(path)
        self._authorize(request.headers)
        address = None if path in reviews.PATHS else self._address(path)
        if address is None:
            return await self._document(request, path)
        if address.part == "log" and address.kind.resource == POD:
            if request.method != "GET":
                raise unsupported_method()
            pod = self._objects.get(address.kind, address.namespace, address.name)
            return logs(pod, Query(request.query_params), self._runtime, self.stopping)
        if address.part == "exec" and address.kind.resource == POD:
            pod = self._objects.get(address.kind, address.namespace, address.name)
            container = Query(request.query_params).text("container")
            # Clients that were refused over WebSocket ask once more like this, and show the answer.
            self._runtime.check(pod, container_of(pod, container))
            raise bad_request(NEEDS_WEBSOCKET)
        return await self._resources.handle(request, address)

    def _authorize(self, headers: Headers) -> None:
        shown = headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not compare_digest(shown, self._authorization):
            raise unauthorized()

    def _address(self, path: str) -> Address | None:
        """Find what object or collection a path leads to; None for other documents."""
        match path.split("/")[1:]:
            case ["api", version, *rest] if rest:
                group = ""
            case ["apis", group, version, *rest] if rest:
                pass
            case _:
                return None
        namespace = None
        match rest:
            case ["namespaces", within, plural, *below] if plural != "status":
                namespace, rest = within, [plural, *below]
        plural, name, part, *more = [*rest, "", ""]
        kind = self._kinds.at(group, version, plural)
        missing = name and kind.resource.namespaced and namespace is None
        if any(more) or missing or (namespace is not None and not kind.resource.namespaced):
            raise no_such_path()
        return Address(kind, namespace, name, part)

    async def _document(self, request: Request, path: str) -> ASGIApp:
        """Answer what is not an object: discovery, OpenAPI, reviews, metrics."""
        if path in reviews.PATHS and request.method == "POST":
            asked = decode(await read_body(request), content_type(request))
            return answer(reviews.review(path, asked), 201)
        if request.method != "GET":
            raise no_such_path()
        if path == "/metrics":
            return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_PLAIN_0_0_4)
        if path == "/openapi/v2":
            return Response(version_2(), media_type=VERSION_2_TYPE)
        if path in ("/api", "/apis") and asked_form(request) == discovery.AGGREGATED:
            content = discovery.aggregated(self._kinds, core=path == "/api")
            return Response(orjson.dumps(content), media_type=discovery.AGGREGATED_TYPE)
        found = self._known(path.strip("/").split("/"))
        if found is None:
            raise no_such_path()
        return answer(found)

    def _known(self, steps: list[str]) -> discovery.Document | bytes | None:
        found: discovery.Document | bytes | None = None
        match steps:
            case ["api"]:
                found = discovery.core_versions()
            case ["apis"]:
                found = discovery.groups(self._kinds)
            case ["api", version]:
                found = discovery.resources(self._kinds, "", version)
            case ["apis", group]:
                found = discovery.group(self._kinds, group)
            case ["apis", group, version]:
                found = discovery.resources(self._kinds, group, version)
            case ["openapi", "v3"]:
                found = self._openapi.index()
            case ["openapi", "v3", *rest]:
                found = self._openapi.document("/".join(rest))
        return found

    async def _serve_socket(self, socket: WebSocket) -> None:
        """Run a command for a client, or refuse before the handshake is done."""
        try:
            command = self._command(socket)
            protocol = protocol_of(socket.scope.get("subprotocols", []))
            if protocol is None:
                raise bad_request("none of the offered subprotocols is spoken here")
            session = await command.start()
        except ApiError as refused:
            body = orjson.dumps(status(refused))
            await socket.send_denial_response(
                Response(body, refused.code, media_type="application/json")
            )
            return
        await socket.accept(subprotocol=protocol)
        await command.serve(socket, session, self.stopping)

    def _command(self, socket: WebSocket) -> RemoteCommand:
        self._authorize(socket.headers)
        address = self._address(socket.scope["path"])
        if address is None or (address.kind.resource, address.part) != (POD, "exec"):
            raise no_such_path()
        pod = self._objects.get(address.kind, address.namespace, address.name)
        return RemoteCommand(self._runtime, pod, Query(socket.query_params))


def _about_the_server(path: str) -> Response:
    return answer(discovery.VERSION) if path == "/version" else PlainTextResponse("ok")
