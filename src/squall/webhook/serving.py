"""The webhook of one replica: HTTPS, which path means what, and its certificate."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

import orjson

from squall.api.cluster import Cluster, Object
from squall.api.policy import Policy
from squall.api.served import ServedKind
from squall.certificates import Issued
from squall.clock import Clock
from squall.http import Answer, Connection, Question
from squall.webhook.authorisation import AT_A_TIME, authorise
from squall.webhook.reach import GROUP
from squall.webhook.renewal import Place, Renewal
from squall.webhook.reviews import NotAReview, Review, decode
from squall.webhook.verdicts import fill_in, judge

AUTHORISATION = "/validate-auth"
HEALTH = "/healthz"
"""Says `ok` to anybody, for probes."""

_HANDSHAKE_SECONDS = 5.0
_STOP_SECONDS = 5.0


def paths(kind: ServedKind) -> tuple[str, str]:
    """Name the paths of a kind, as upstream does: for its defaults, for its rules."""
    resource = kind.resource
    name = f"{resource.group.replace('.', '-')}-{resource.version}-{resource.kind.lower()}"
    return f"/mutate-{name}", f"/validate-{name}"


class Webhook:
    """Answers API servers, on every replica.

    Args:
        cluster: where rights are looked up and the certificate is kept.
        kinds: every kind that is served; those of `chaos-mesh.org` have paths.
        policy: reads the policy of the installation.
        clock: when certificates expire.
        place: where callers find it.
    """

    def __init__(
        self,
        cluster: Cluster,
        kinds: Iterable[ServedKind],
        policy: Callable[[], Policy],
        clock: Clock,
        place: Place,
    ) -> None:
        self._cluster, self._policy, self._place = cluster, policy, place
        self._mutating, self._validating = {}, {}
        for kind in kinds:
            if kind.resource.group == GROUP:
                mutate, validate = paths(kind)
                self._mutating[mutate], self._validating[validate] = kind, kind
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.set_alpn_protocols(["http/1.1"])
        self._renewal = Renewal(cluster, clock, place, self._show)
        self._renewing: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._open: set[Connection] = set()
        self._slots = asyncio.Semaphore(AT_A_TIME)

    @property
    def tls(self) -> ssl.SSLContext:
        """Show the same certificate elsewhere, the newest at every handshake."""
        return self._tls

    async def start(self, host: str, port: int) -> int:
        """Listen; returns when requests are answered, which needs a certificate first.

        Args:
            host: name or address to listen on; empty: every address of this pod.
            port: 0 for one that is free.

        Returns:
            The port.

        Raises:
            OSError: the address cannot be listened on.
        """
        listening = _listening(host, port)
        self._renewing = asyncio.create_task(self._renewal.run())
        ready = asyncio.create_task(self._renewal.ready.wait())
        try:
            await asyncio.wait((ready, self._renewing), return_when=asyncio.FIRST_COMPLETED)
            if self._renewing.done():
                self._renewing.result()
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._answer, self._open),
                sock=listening,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=1,
            )
        finally:
            ready.cancel()
            if self._server is None:
                listening.close()
        return int(listening.getsockname()[1])

    async def serve(self, host: str, port: int) -> None:
        """Start, go on until cancelled, and stop.

        Raises:
            OSError: the address cannot be listened on.
        """
        try:
            await self.start(host, port)
            if self._renewing is not None:
                await self._renewing
        finally:
            await self.stop()

    def missing(self) -> str:
        """Name what is not there yet; empty when requests are answered."""
        return "" if self._server else f"the webhook's certificate, Secret {self._place.service}"

    async def stop(self) -> None:
        """Listen no more, answer what was asked, and close; again changes nothing."""
        if self._server is not None:
            self._server.close()
            leaving = tuple(self._open)
            for connection in leaving:
                connection.leave()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await asyncio.gather(*(connection.gone.wait() for connection in leaving))
            for connection in tuple(self._open):
                connection.abort()
            self._server = None
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
            self._renewing = None

    async def _answer(self, question: Question) -> Answer:
        path = question.path
        if path == HEALTH:
            return Answer(HTTPStatus.OK, b"ok")
        if path not in (known := {AUTHORISATION, *self._mutating, *self._validating}):
            said = f"nothing is reviewed at {path}; there are: {', '.join(sorted(known))}"
            return Answer(HTTPStatus.NOT_FOUND, said.encode())
        if question.method != "POST":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"send an AdmissionReview with POST")
        try:
            review = decode(question.body)
        except NotAReview as why:
            return Answer(HTTPStatus.BAD_REQUEST, str(why).encode())
        verdict = await self._verdict(path, review)
        return Answer(HTTPStatus.OK, orjson.dumps(verdict), "application/json")

    async def _verdict(self, path: str, review: Review) -> Object:
        if path == AUTHORISATION:
            return await authorise(self._cluster, review, slots=self._slots)
        if path in self._mutating:
            return fill_in(self._mutating[path], review)
        return judge(self._validating[path], self._policy(), review)

    def _show(self, issued: Issued) -> None:
        """Show this certificate at every handshake from now on."""
        file = os.memfd_create("squall-webhook")  # the library reads files, and disks keep keys
        try:
            os.write(file, issued.key + issued.certificate)
            self._tls.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)


def _listening(host: str, port: int) -> socket.socket:
    six = ":" in host or (not host and socket.has_dualstack_ipv6())
    family = socket.AF_INET6 if six else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as refused:
        listening.close()
        where = f"{host}:{port}: {refused.strerror}"
        raise OSError(refused.errno, f"cannot listen on {where}; name another address") from None
    return listening
