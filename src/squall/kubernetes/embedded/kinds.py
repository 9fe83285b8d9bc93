"""The kinds an embedded API serves, found by what a URL, an object or the store calls them."""

from collections.abc import Iterable, Iterator

from squall.api.cluster import Resource
from squall.api.served import ServedKind
from squall.kubernetes.embedded.refusals import no_such_path, qualified


class Kinds:
    """An immutable set of served kinds.

    Raises:
        ValueError: two kinds have the same name.
    """

    def __init__(self, kinds: Iterable[ServedKind]) -> None:
        self._by_key: dict[str, ServedKind] = {}
        for kind in kinds:
            key = qualified(kind.resource)
            if key in self._by_key:
                raise ValueError(f"{key} is served twice; remove one of them")
            self._by_key[key] = kind
        self._by_path = {(k.resource.group, k.resource.version, k.resource.plural): k for k in self}

    def __iter__(self) -> Iterator[ServedKind]:
        return iter(self._by_key.values())

    def at(self, group: str, version: str, plural: str) -> ServedKind:
        """Find the kind that a URL names.

        Raises:
            NotFound: it is not served.
        """
        kind = self._by_path.get((group, version, plural))
        if kind is None:
            raise no_such_path()
        return kind

    def of(self, resource: Resource) -> ServedKind:
        """Find the kind of a resource.

        Raises:
            NotFound: it is not served.
        """
        return self.at(resource.group, resource.version, resource.plural)

    def stored(self, key: str) -> ServedKind | None:
        """Find a kind by its name in the store; None when it is no longer served."""
        return self._by_key.get(key)

    def group_versions(self) -> list[tuple[str, str]]:
        """List the served (group, version) pairs, sorted; the core group is the empty one."""
        return sorted({(k.resource.group, k.resource.version) for k in self})

    def in_group(self, group: str, version: str) -> list[ServedKind]:
        """List the kinds of one group and version."""
        found = (group, version)
        return [k for k in self if (k.resource.group, k.resource.version) == found]


def is_core(resource: Resource) -> bool:
    """Say whether clients know the kind's Go type, as they do for Kubernetes' own groups."""
    return "." not in resource.group or resource.group.endswith(".k8s.io")
