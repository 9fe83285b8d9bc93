"""Values as Go writes them, and with it every message of a Kubernetes API server."""

import json
from decimal import Decimal
from typing import Any

_LEAST_EXPONENT, _FIRST_EXPONENT = -4, 6
"""Between them Go writes a float without an exponent."""
_FIRST_WIDE, _FIRST_ASTRAL = 0x80, 0x10000
"""Where Go's escapes become longer."""
_ESCAPES = str.maketrans(
    {
        '"': '\\"',
        "\\": "\\\\",
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
    }
)


def written(value: Any) -> str:  # noqa: ANN401  (any JSON)
    """Write a value as messages of the API server do: as Go's `%q` and `%v`."""
    if isinstance(value, str):
        escaped = map(_escaped, value.translate(_ESCAPES))
        return f'"{"".join(escaped)}"'
    if isinstance(value, dict):
        return "{}"  # what it held is pruned: no object is meant here
    if isinstance(value, list):
        # One storey is enough to see the mistake, and depth does not matter.
        return f"[{','.join('[]' if isinstance(item, list) else written(item) for item in value)}]"
    return _decimal(value) if isinstance(value, float) else json.dumps(value)


def offered(choice: Any) -> str:  # noqa: ANN401  (any JSON)
    """Write one of the values that an `enum` allows; all of them are quoted."""
    return written(choice) if isinstance(choice, str) else f'"{written(choice)}"'


def _decimal(value: float) -> str:
    """Write a float with as few digits as tell it apart, and with an exponent from 1e+06 on."""
    exact = Decimal(repr(value)).normalize()
    if _LEAST_EXPONENT <= exact.adjusted() < _FIRST_EXPONENT:
        return repr(value).removesuffix(".0")
    return f"{value:.{len(exact.as_tuple().digits) - 1}e}"


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    code = ord(letter)
    if code < _FIRST_WIDE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _FIRST_ASTRAL else f"\\U{code:08x}"
