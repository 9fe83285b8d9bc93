"""Patterns over absolute paths, as the rules of files are written. Pure.

The same language as that of the native filter and of upstream's: `*`, `?`, `[a-z]` and `[!a-z]`
match anything but `/`; `**` is a whole component and stands for any number of them, none included.

Source: documentation of the Rust crate glob, `Pattern` with `require_literal_separator`.
"""

import re
from functools import lru_cache

_WILD = re.compile(r"[*?\[]")


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """Give the expression that a whole path must match.

    Raises:
        ValueError: it is no pattern; says why.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "*":
            part, at = _stars(pattern, at)
        elif pattern[at] == "[":
            part, at = _range(pattern, at)
        else:
            part, at = "[^/]" if pattern[at] == "?" else re.escape(pattern[at]), at + 1
        parts.append(part)
    return re.compile("".join(parts), re.DOTALL)


def matches(pattern: str, path: str) -> bool:
    """Does a rule with this pattern fit this path? An empty one fits all."""
    return not pattern or compiled(pattern).fullmatch(path) is not None


def literal(pattern: str) -> str:
    """Give what every path that matches begins with; the pattern itself where nothing is wild."""
    wild = _WILD.search(pattern)
    return pattern[: wild.start()] if wild else pattern


def is_literal(pattern: str) -> bool:
    """Does it match one path alone?"""
    return literal(pattern) == pattern


def _stars(pattern: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(pattern) and pattern[end] == "*":
        end += 1
    if end - at == 1:
        return "[^/]*", end
    if end - at > len("**"):
        raise ValueError("is not a pattern: more than two `*` stand beside each other")
    if (at > 0 and pattern[at - 1] != "/") or (end < len(pattern) and pattern[end] != "/"):
        raise ValueError("is not a pattern: `**` must be a whole component, as in `/data/**/*`")
    if end == len(pattern):
        return ".*", end
    return "(?:.*/)?", end + 1


def _range(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern[at + 1 : at + 2] == "!"
    begin = at + (2 if negated else 1)
    # A bracket that comes first is one of the characters.
    end = pattern.find("]", begin + 1)
    if end < 0:
        raise ValueError("is not a pattern: a `[` has no `]`")
    inside = pattern[begin:end]
    found, index = "", 0
    while index < len(inside):
        if index + 2 < len(inside) and inside[index + 1] == "-":
            low, high = inside[index], inside[index + 2]
            # A range that runs backwards matches nothing.
            found += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
            index += 3
        else:
            found += re.escape(inside[index])
            index += 1
    if negated:
        return f"[^/{found}]", end + 1
    return (f"(?!/)[{found}]" if found else "(?!)"), end + 1
