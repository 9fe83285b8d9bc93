"""Live faults of one target, put together into one state of its HTTP exchanges. Pure."""

import json
from collections.abc import Iterable
from zlib import crc32

from squall.errors import InvalidFault
from squall.faults.http_traffic import actions
from squall.faults.http_traffic.model import HTTPFault, TlsSecret
from squall.injection.contract import Live
from squall.injection.world.http import (
    Authority,
    Certificate,
    Grpc,
    HttpState,
    Patch,
    Replace,
    Rule,
)

ALL = 100.0


def merge(live: Iterable[Live[HTTPFault]], authorities: Iterable[Authority] = ()) -> HttpState:
    """Put every fault's rule behind those of older faults.

    Each port gets one certificate: that of the oldest fault that has one for it.

    Args:
        live: every fault, oldest first.
        authorities: those that the target was made to trust for them.

    Raises:
        InvalidFault: a fault came without the values of its Secret, or they are no text.
    """
    live = tuple(live)
    certificates: dict[int, Certificate] = {}
    for one in live:
        if one.fault.tls and one.fault.port not in certificates:
            certificates[one.fault.port] = _certificate(one, one.fault.tls)
    return HttpState(
        tuple(rule(one) for one in live), tuple(certificates.values()), tuple(authorities)
    )


def _certificate(live: Live[HTTPFault], tls: TlsSecret) -> Certificate:
    try:
        values = {part: live.secrets[str(key)].decode() for part, key in tls.keys().items()}
    except (KeyError, UnicodeDecodeError) as missing:
        where = f"{tls.secret_namespace}/{tls.secret_name}"
        raise InvalidFault(f"the Secret {where} came without what is needed: {missing}") from None
    chain = "\n".join(values[part].strip() for part in ("cert", "ca") if part in values)
    return Certificate(live.fault.port, f"{chain}\n", values["key"])


def rule(live: Live[HTTPFault]) -> Rule:
    """Say what one fault does, in the words of the means."""
    fault = live.fault
    return Rule(
        source=live.source,
        target=fault.target,
        port=fault.port,
        outgoing=fault.outgoing,
        path=fault.path or None,
        method=fault.method or None,
        code=fault.code,
        request_headers=fault.request_headers or {},
        response_headers=fault.response_headers or {},
        percent=ALL if fault.percent is None else fault.percent,
        # Without one, experiments still differ from each other in whom they hit.
        seed=crc32(live.source.encode()) if fault.seed is None else fault.seed,
        abort=bool(fault.abort),
        delay_us=fault.delay_us,
        replace=_replace(fault.replace) if fault.replace and fault.replaces else None,
        patch=_patch(fault.patch) if fault.patch and fault.patches else None,
        grpc=_grpc(fault.grpc) if fault.grpc and fault.ends_calls else None,
    )


def _replace(asked: actions.Replace) -> Replace:
    return Replace(
        path=asked.path or None,
        method=asked.method or None,
        headers=asked.headers or {},
        queries=asked.queries or {},
        body=asked.body,
        code=asked.code,
    )


def _patch(asked: actions.Patch) -> Patch:
    return Patch(
        headers=tuple((name, value) for name, value in asked.headers or ()),
        queries=tuple((name, value) for name, value in asked.queries or ()),
        body=json.loads(asked.body.value) if asked.body else None,
    )


def _grpc(asked: actions.Grpc) -> Grpc:
    return Grpc(
        status=asked.status,
        message=asked.message,
        trailers=asked.trailers or {},
        after_messages=asked.after_messages,
    )
