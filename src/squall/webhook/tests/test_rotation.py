from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from squall.certificates import make_authority, make_server
from squall.webhook.rotation import (
    AUTHORITY,
    LASTS,
    LOOK_AGAIN,
    NEXT,
    NEXT_KEY,
    OVERLAP,
    SERVED,
    SERVED_KEY,
    SPARE,
    TRUSTED,
    Decision,
    Step,
    carry_out,
    decide,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTS = ("squall-webhook.squall.svc",)
DUE = NOW + LASTS * 2 / 3


def made(at=NOW, hosts=HOSTS):
    return carry_out(Step.START, {}, hosts, at)


GOOD, OTHER = made(), made()
PREPARED = carry_out(Step.PREPARE, GOOD, HOSTS, DUE)
LATE = carry_out(Step.PREPARE, GOOD, HOSTS, NOW + LASTS - 3 * SPARE)
TWO_TRUSTED = {TRUSTED: GOOD[TRUSTED] + OTHER[TRUSTED], NEXT: b"", NEXT_KEY: b""}
PROMOTED = carry_out(Step.PROMOTE, PREPARED, HOSTS, DUE + OVERLAP)


def foreign():
    authority = make_authority("somebody", NOW, LASTS)
    server = make_server(authority, "x", HOSTS, NOW, LASTS)
    return {
        SERVED: server.certificate,
        SERVED_KEY: server.key,
        TRUSTED: authority.certificate,
    }


@pytest.mark.parametrize(
    ("data", "at", "step"),
    [
        ({}, NOW, Step.START),
        (GOOD, NOW, Step.NOTHING),
        (GOOD, DUE - timedelta(seconds=1), Step.NOTHING),
        (GOOD, DUE, Step.PREPARE),
        (GOOD, NOW + LASTS, Step.START),
        (GOOD, NOW - timedelta(days=1), Step.START),
        (GOOD | {SERVED: b"-----BEGIN CERT"}, NOW, Step.START),
        (GOOD | {SERVED: GOOD[SERVED][:300]}, NOW, Step.START),
        (GOOD | {SERVED_KEY: b""}, NOW, Step.START),
        (GOOD | {SERVED_KEY: OTHER[SERVED_KEY]}, NOW, Step.START),
        (GOOD | {TRUSTED: b"\xff"}, NOW, Step.START),
        (GOOD | {TRUSTED: OTHER[TRUSTED]}, NOW, Step.START),
        (GOOD | {TRUSTED: OTHER[TRUSTED] + GOOD[TRUSTED]}, NOW, Step.NOTHING),
        ({name: GOOD[name] for name in (SERVED, TRUSTED)}, NOW, Step.START),
        ({name: GOOD[name] for name in (SERVED, SERVED_KEY)}, NOW, Step.START),
        (made(hosts=("another.squall.svc",)), NOW, Step.START),
        (PREPARED, DUE, Step.NOTHING),
        (PREPARED, DUE + OVERLAP, Step.PROMOTE),
        (PREPARED | {NEXT: b"broken"}, DUE, Step.PREPARE),
        (PREPARED | {SERVED: b"broken"}, DUE, Step.PROMOTE),
        (PREPARED | {SERVED: b"broken", NEXT_KEY: b""}, DUE, Step.START),
        (PROMOTED, DUE + OVERLAP, Step.NOTHING),
        (PROMOTED, DUE + 2 * OVERLAP, Step.FORGET),
        (LATE, NOW + LASTS - 2 * SPARE, Step.NOTHING),
        (LATE, NOW + LASTS - SPARE, Step.PROMOTE),
        (LATE | TWO_TRUSTED, NOW + LASTS - 2 * SPARE, Step.PREPARE),
        (foreign(), NOW, Step.NOTHING),
        (foreign(), DUE, Step.NOTHING),
        (foreign(), NOW + LASTS, Step.START),
    ],
)
def test_what_is_to_be_done(data, at, step):
    decision = decide(data, HOSTS, at)
    assert decision.step is step
    assert (decision.again > at) == (step is Step.NOTHING)


def test_a_whole_life_leaves_no_moment_without_trust():
    """Whoever still serves the old one, and whoever serves the new one, is trusted."""
    data: dict[str, bytes] = {}
    now, steps = NOW, []
    while now < NOW + 3 * LASTS:
        decision = decide(data, HOSTS, now)
        if decision.step is Step.NOTHING:
            idle = decision.again == now + LOOK_AGAIN
            now = now + timedelta(days=1) if idle else decision.again
            continue
        steps.append(decision.step)
        after = carry_out(decision.step, data, HOSTS, now)
        if decision.step is Step.PROMOTE:
            for known in (data[TRUSTED], after[TRUSTED]):
                for served in (data[SERVED], after[SERVED]):
                    assert vouched(known, served)
        data = after
    assert steps[:7] == [Step.START, *[Step.PREPARE, Step.PROMOTE, Step.FORGET] * 2]
    assert len(x509.load_pem_x509_certificates(data[TRUSTED])) == 1
    assert data.keys() == {SERVED, SERVED_KEY, TRUSTED}


def vouched(bundle, served):
    certificate = x509.load_pem_x509_certificate(served)
    issuers = [one.public_key() for one in x509.load_pem_x509_certificates(bundle)]
    wanted = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return any(x509.AuthorityKeyIdentifier.from_issuer_public_key(one) == wanted for one in issuers)


def test_a_renewal_is_not_slept_through_for_what_may_be_forgotten_later():
    early = NOW + timedelta(minutes=3)
    authority = make_authority(AUTHORITY, NOW, timedelta(minutes=9))
    server = make_server(authority, "x", HOSTS, NOW, timedelta(minutes=9))
    trusted = authority.certificate + GOOD[TRUSTED]
    data = {SERVED: server.certificate, SERVED_KEY: server.key, TRUSTED: trusted}
    assert decide(data, HOSTS, early) == Decision(Step.NOTHING, NOW + timedelta(minutes=6))
