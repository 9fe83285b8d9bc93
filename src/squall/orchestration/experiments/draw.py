"""Draw targets from a seed: how many, and who first.

Every candidate has a rank that depends on the seed, the selector and its own id, and on nothing
else. So one seed gives one answer whatever order the candidates come in, and a candidate that
comes or goes moves nobody else: what a live selection needs.
"""

from collections.abc import Iterable
from hashlib import blake2b

_HUNDRED = 100


def seed_of(spec_seed: int | None, uid: str) -> str:
    """Choose what targets are drawn from.

    Args:
        spec_seed: `spec.seed`, if the author set one.
        uid: of the experiment; gives every experiment without a seed its own draw.
    """
    return str(spec_seed) if spec_seed is not None else uid


def ranked(seed: str, selector_key: str, ids: Iterable[str]) -> list[str]:
    """Put candidates into the order in which they are drawn."""
    return sorted(ids, key=lambda i: (_number(seed, selector_key, i), i))


def quota(mode: str, value: str, total: int, seed: str, selector_key: str) -> int:
    """Say how many of `total` candidates a mode takes.

    Args:
        mode: one, all, fixed, fixed-percent or random-max-percent.
        value: a number or a percentage, as the mode wants it; ignored by one and all.
        total: how many candidates there are.
        seed: decides the percentage of random-max-percent.
        selector_key: `.` or `.Target`.

    Raises:
        ValueError: no such mode, or a value that is no whole number.

    Source: chaos-mesh pkg/selector/generic.
    """
    match mode:
        case "one":
            wanted = 1
        case "all":
            wanted = total
        case "fixed":
            wanted = int(value)
        case "fixed-percent":
            wanted = _share(total, int(value))
        case "random-max-percent":
            most = int(value)
            wanted = _share(total, _number(seed, selector_key, "percent") % (most + 1))
        case _:
            raise ValueError(f"mode {mode!r} is not supported")
    return max(0, min(wanted, total))


def _share(total: int, percent: int) -> int:
    return -(-total * percent // _HUNDRED)  # rounded up


def _number(seed: str, selector_key: str, what: str) -> int:
    text = f"{seed}\0{selector_key}\0{what}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest())
