"""When the webhook's certificate is made, replaced and forgotten; a step that does no I/O.

The Secret holds what is served (`tls.crt`, `tls.key`), whom callers shall trust (`ca.crt`) and,
while it is being replaced, what is served next (`next.crt`, `next.key`). Every certificate has an
authority of its own, whose key is forgotten at once: nobody can steal it. A replacement is trusted
for OVERLAP before it is served, and what it replaces stays trusted for as long afterwards, so that
neither callers nor replicas need to change at the same moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from squall.certificates import BACKDATED, Issued, hosts_of, make_authority, make_server

SERVED, SERVED_KEY, TRUSTED = "tls.crt", "tls.key", "ca.crt"
NEXT, NEXT_KEY = "next.crt", "next.key"
AUTHORITY = "squall-webhook-ca"
"""Common name of the authorities that are made here; others are renewed by their owner."""
LASTS = timedelta(days=365)
OVERLAP = timedelta(minutes=10)
"""Longer than it takes a caller or a replica to see a changed object."""
SPARE = timedelta(minutes=1)
"""Nothing is served so shortly before its end, whatever the overlap: clocks differ."""
LOOK_AGAIN = timedelta(hours=1)
"""At least so often: somebody may step the clock."""

Data = Mapping[str, bytes]
"""Decoded data of the Secret."""


class Step(StrEnum):
    """What is to be done with the Secret."""

    NOTHING = "nothing"
    START = "start"
    """Make everything anew: what is there cannot be served."""
    PREPARE = "prepare"
    """Make the next certificate and have it trusted."""
    PROMOTE = "promote"
    """Serve the next certificate."""
    FORGET = "forget"
    """Trust nobody any more but those who vouch for what is served."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and when to ask again."""

    step: Step
    again: datetime


def decide(data: Data, hosts: Sequence[str], now: datetime) -> Decision:
    """Say what is to be done.

    Args:
        data: of the Secret as it is; empty where there is none.
        hosts: names by which callers reach the webhook.
        now: the moment.
    """
    served = _good(data, SERVED, SERVED_KEY, hosts, now)
    following = _good(data, NEXT, NEXT_KEY, hosts, now)
    if served is None:
        return Decision(Step.START if following is None else Step.PROMOTE, now)
    if following is not None:
        ends = served.not_valid_after_utc - SPARE
        due, step = min(_made(following) + OVERLAP, ends), Step.PROMOTE
    elif not _ours(served):
        due, step = now + LOOK_AGAIN, Step.NOTHING
    else:
        due, step = _renewed(served), Step.PREPARE
        forgotten = _made(served) + 2 * OVERLAP
        if len(_certificates(data.get(TRUSTED, b""))) > 1 and now < due and forgotten < due:
            due, step = forgotten, Step.FORGET
    if due <= now:
        return Decision(step, now)
    return Decision(Step.NOTHING, min(due, now + LOOK_AGAIN))


def carry_out(step: Step, data: Data, hosts: Sequence[str], now: datetime) -> dict[str, bytes]:
    """Give the data that the Secret shall have, all of it."""
    if step is Step.START:
        made, authority = _make(hosts, now)
        return {SERVED: made.certificate, SERVED_KEY: made.key, TRUSTED: authority}
    current = {name: data[name] for name in (SERVED, SERVED_KEY, TRUSTED) if name in data}
    if step is Step.PREPARE:
        made, authority = _make(hosts, now)
        following = {NEXT: made.certificate, NEXT_KEY: made.key}
        return current | following | {TRUSTED: _vouching(data) + authority}
    if step is Step.PROMOTE:
        return current | {SERVED: data[NEXT], SERVED_KEY: data[NEXT_KEY]}
    if step is Step.FORGET:
        return current | {TRUSTED: _vouching(data)}
    return dict(data)


def _make(hosts: Sequence[str], now: datetime) -> tuple[Issued, bytes]:
    authority = make_authority(AUTHORITY, now, LASTS)
    return make_server(authority, hosts[0][:64], hosts, now, LASTS), authority.certificate


def _good(
    data: Data, certificate: str, key: str, hosts: Sequence[str], now: datetime
) -> x509.Certificate | None:
    """Read a certificate that can be served now, or None."""
    try:
        found = x509.load_pem_x509_certificate(data[certificate])
        secret = serialization.load_pem_private_key(data[key], None)
        fits = secret.public_key() == found.public_key()
    except (KeyError, ValueError, TypeError):  # missing, half-written, or locked by a password
        return None
    vouched = any(_is_good_at(one, now) for one in _authorities(data, found))
    usable = fits and vouched and _is_good_at(found, now) and set(hosts) <= hosts_of(found)
    return found if usable else None


def _is_good_at(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _authorities(data: Data, certificate: x509.Certificate) -> list[x509.Certificate]:
    return [one for one in _certificates(data.get(TRUSTED, b"")) if _vouches(one, certificate)]


def _vouches(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _vouching(data: Data) -> bytes:
    served = x509.load_pem_x509_certificate(data[SERVED])
    return b"".join(
        one.public_bytes(serialization.Encoding.PEM) for one in _authorities(data, served)
    )


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _ours(certificate: x509.Certificate) -> bool:
    return certificate.issuer.rfc4514_string() == f"CN={AUTHORITY}"


def _made(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + BACKDATED


def _renewed(certificate: x509.Certificate) -> datetime:
    made = _made(certificate)
    return made + (certificate.not_valid_after_utc - made) * 2 / 3
