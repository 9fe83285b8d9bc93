"""Patches that know nothing of kinds: JSON merge patch and JSON patch."""

from copy import deepcopy
from typing import Any

from squall.kubernetes.embedded.refusals import bad_request, cannot_be_processed

Json = Any
"""Any JSON value."""

MOST_OPERATIONS = 10_000
"""Of one JSON patch, as in a Kubernetes API server."""
MOST_COPIED = 100_000
"""Values one JSON patch may copy; without a bound a few operations could fill the memory."""


def merge_patch(target: Json, patch: Json) -> Json:
    """Apply a JSON merge patch and return a new value; unchanged parts are shared.

    Source: RFC 7386.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: Json, operations: Json) -> Json:
    """Apply a JSON patch and return a new value.

    Raises:
        ApiError: 400, `operations` is no patch; 422, a path is not there or a test failed.

    Source: RFC 6902.
    """
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise bad_request("a JSON patch is a list of operations")
    if len(operations) > MOST_OPERATIONS:
        raise bad_request(f"a JSON patch has at most {MOST_OPERATIONS} operations")
    document = _Document(deepcopy(target))
    for operation in operations:
        try:
            document.carry_out(operation)
        except (KeyError, IndexError, ValueError, TypeError) as wrong:
            raise cannot_be_processed() from wrong
    return document.root


class _Document:
    """A value that operations change in place."""

    def __init__(self, root: Json) -> None:
        self.root = root
        self._copied = 0

    def carry_out(self, operation: dict[str, Any]) -> None:
        path = _pointer(operation["path"])
        match operation["op"]:
            case "add":
                self._add(path, deepcopy(operation["value"]))
            case "remove":
                self._remove(path)
            case "replace":
                self._read(path)
                self._replace(path, deepcopy(operation["value"]))
            case "move":
                source = _pointer(operation["from"])
                if path[: len(source)] == source and path != source:
                    raise ValueError("a value cannot move into itself")
                self._add(path, self._remove(source))
            case "copy":
                value = self._read(_pointer(operation["from"]))
                self._copied += _size(value)
                if self._copied > MOST_COPIED:
                    raise ValueError(f"copies more than {MOST_COPIED} values")
                self._add(path, deepcopy(value))
            case "test":
                if not _same(self._read(path), operation.get("value")):
                    raise ValueError(f"testing value {operation['path']} failed")
            case other:
                raise ValueError(f"unexpected kind: {other}")

    def _read(self, path: list[str]) -> Json:
        found = self.root
        for name in path:
            found = found[_index(name, len(found) - 1)] if isinstance(found, list) else found[name]
        return found

    def _add(self, path: list[str], value: Json) -> None:
        if not path:
            self.root = value
            return
        parent, name = self._read(path[:-1]), path[-1]
        if isinstance(parent, list):
            size = len(parent)
            parent.insert(size if name == "-" else _index(name, size), value)
        elif isinstance(parent, dict):
            parent[name] = value
        else:
            raise TypeError(f"{name} lies in neither an object nor a list")

    def _replace(self, path: list[str], value: Json) -> None:
        if not path:
            self.root = value
            return
        parent, name = self._read(path[:-1]), path[-1]
        parent[_index(name, len(parent) - 1) if isinstance(parent, list) else name] = value

    def _remove(self, path: list[str]) -> Json:
        parent, name = self._read(path[:-1]), path[-1]
        if isinstance(parent, list):
            return parent.pop(_index(name, len(parent) - 1))
        return parent.pop(name)


def _pointer(text: Json) -> list[str]:
    """Split a JSON pointer (RFC 6901)."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise ValueError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(name: str, most: int) -> int:
    if not (name.isascii() and name.isdigit()) or int(name) > most:
        raise IndexError(f"no element {name}")
    return int(name)


def _same(left: Json, right: Json) -> bool:
    """Compare as JSON does: `true` is not `1`."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _size(value: Json) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return 1
