"""HTTPChaos: what may be asked, and what each target gets of it."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

from squall.api.experiment import ExperimentSpec
from squall.api.units import Duration, Int32
from squall.api.wire import Fault, Flaw, Wire
from squall.faults.http_traffic.actions import (
    Grpc,
    Patch,
    Replace,
    Side,
    code_flaws,
    header_flaws,
    path_flaws,
)
from squall.injection.kind import Peers, SecretKey

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT")
LAST_PORT = 65535


class TlsSecret(Wire):
    """Where the certificate of the target's own server is, so that its TLS can be opened."""

    secret_name: str
    """Name of the Secret."""
    secret_namespace: str
    """Namespace of the Secret."""
    cert_name: str
    """Key of the certificate in the Secret, as `tls.crt`: PEM, the server's own first."""
    key_name: str
    """Key of its private key in the Secret, as `tls.key`: PEM."""
    ca_name: str | None = None
    """Key of its authority in the Secret, as `ca.crt`; sent along with the certificate."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that all of it is named."""
        for field in ("secretName", "secretNamespace", "certName", "keyName"):
            if not self.model_dump(by_alias=True)[field]:
                yield Flaw(field, "names a Secret, or what is in it")

    def keys(self) -> Mapping[str, SecretKey]:
        """Name the values that are needed, by what they are: `cert`, `key`, `ca`."""
        named = {"cert": self.cert_name, "key": self.key_name, "ca": self.ca_name}
        place = self.secret_namespace, self.secret_name
        return {part: SecretKey(*place, name) for part, name in named.items() if name}


class Exchanges(Wire):
    """Which exchanges of a target are hit, and what is done to them."""

    target: Side
    """`Request`: before the server sees it. `Response`: before the client sees it."""
    port: Int32 = 0
    """Destination port of the connections; required."""
    path: str | None = None
    """Only requests for such a path, with wildcards `*` and `?`, compared without what comes after
    a `?` in the request; all by default."""
    method: str | None = None
    """Only requests with this method; all by default."""
    code: Int32 | None = None
    """Only responses with this code; where requests are hit it is not looked at."""
    request_headers: dict[str, str] | None = Field(default=None, alias="request_headers")
    """Only requests that carry all of these headers, each with exactly this value."""
    response_headers: dict[str, str] | None = Field(default=None, alias="response_headers")
    """Only responses that carry all of these headers; where requests are hit they are not looked
    at."""
    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """Share of these exchanges that is hit, drawn for each from `seed`; 100 by default."""
    outgoing: bool = False
    """True: exchanges that the target begins, with servers on that port anywhere. By default those
    of its own server."""
    open_tls: bool | None = None
    """Of `outgoing` exchanges, is their TLS opened? While it is, the target trusts an authority of
    ours. By default where `port` ends in 443."""
    abort: bool | None = None
    """Reset the connection without an answer; in HTTP/2, the stream."""
    delay: Annotated[Duration | None, BeforeValidator(lambda value: value or None)] = None
    """How long each is held, as `300ms`."""
    replace: Replace | None = None
    """What is put in place of what is there."""
    patch: Patch | None = None
    """What is put beside what is there."""
    grpc: Grpc | None = None
    """Another end for gRPC calls."""

    @property
    def opens_tls(self) -> bool:
        """Is the target made to trust an authority of ours?"""
        usual = str(self.port).endswith("443")
        return self.outgoing and (usual if self.open_tls is None else self.open_tls)

    @property
    def delay_us(self) -> int:
        """How long each is held; 0 where it is not."""
        return (self.delay or timedelta(0)) // timedelta(microseconds=1)

    @property
    def replaces(self) -> bool:
        """Is something put in place of what is there?"""
        return self.replace is not None and not self.replace.empty

    @property
    def patches(self) -> bool:
        """Is something put beside what is there?"""
        return self.patch is not None and not self.patch.empty

    @property
    def ends_calls(self) -> bool:
        """Are gRPC calls given another end?"""
        return self.grpc is not None and not self.grpc.empty


class HTTPChaosSpec(ExperimentSpec, Exchanges):
    """Delay, break off and change HTTP requests and responses of pods."""

    tls: TlsSecret | None = None
    """The certificate of the target's own server, where that speaks TLS."""

    def flaws(self) -> Iterator[Flaw]:
        """Check what upstream checks, and what could never act."""
        yield from super().flaws()
        if self.percent == 0:
            yield Flaw("percent", "0 hits nothing; it is above 0, up to 100")
        if not 0 < self.port <= LAST_PORT:
            yield Flaw("port", f"port {self.port} is not supported; it is from 1 to {LAST_PORT}")
        yield from path_flaws("path", self.path or "")
        yield from self._method_flaws()
        yield from code_flaws("code", self.code)
        yield from header_flaws("request_headers", (self.request_headers or {}).items())
        yield from header_flaws("response_headers", (self.response_headers or {}).items())
        if self.delay_us < 0:
            yield Flaw("delay", "cannot be negative")
        if not any((self.abort, self.delay_us, self.replaces, self.patches, self.ends_calls)):
            yield Flaw("", "does nothing; give one of abort, delay, replace, patch and grpc")
        yield from self._side_flaws()
        if self.open_tls and not self.outgoing:
            yield Flaw(
                "openTls", "is for outgoing traffic; of the target's own server, name the tls"
            )
        if self.tls is not None and self.outgoing:
            yield Flaw(
                "tls",
                "is the certificate of the target's own server; leave it out with outgoing: the "
                "target is made to trust one of ours",
            )

    def _method_flaws(self) -> Iterator[Flaw]:
        if self.target != "Request":
            return
        replaced = self.replace.method if self.replace else None
        for field, method in (("method", self.method), ("replace.method", replaced)):
            if method is not None and method not in METHODS:
                known = ", ".join(METHODS)
                yield Flaw(field, f"method {method} is not supported; write one of {known}")

    def _side_flaws(self) -> Iterator[Flaw]:
        """Refuse what the other half of an exchange has, which upstream passes over in silence."""
        replace, patch = self.replace or Replace(), self.patch or Patch()
        other = "Response" if self.target == "Request" else "Request"
        of_requests = {
            "replace.path": replace.path,
            "replace.method": replace.method,
            "replace.queries": replace.queries,
            "patch.queries": patch.queries,
        }
        of_responses = {
            "replace.code": replace.code,
            "grpc.afterMessages": self.grpc.after_messages if self.grpc else 0,
        }
        given = of_responses if self.target == "Request" else of_requests
        for field, value in given.items():
            if value:
                yield Flaw(field, f"a {self.target.lower()} has none; use target: {other}")


class HTTPFault(Fault, Exchanges):
    """What the exchanges of one target suffer."""

    seed: int | None = None
    """Decides which exchanges are hit where not all are."""
    tls: TlsSecret | None = None
    """What is what in the Secret; its values come beside the fault."""


def share(spec: HTTPChaosSpec, selector_key: str, peers: Peers) -> HTTPFault:  # noqa: ARG001
    """Give every target the same; there is one role, and nobody has to know the others."""
    told = {name: getattr(spec, name) for name in HTTPFault.model_fields}
    return HTTPFault.model_construct(**told)


def secrets(spec: HTTPChaosSpec) -> tuple[SecretKey, ...]:
    """Name what of the Secret is needed."""
    return tuple(spec.tls.keys().values()) if spec.tls else ()
