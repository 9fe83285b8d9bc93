"""Every trial of this host that needs more than a network namespace, by the need it is for."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from squall.linux.container_capabilities import CONTAINER_TRIALS
from squall.linux.file_capabilities import FILE_TRIALS
from squall.node.doctor import Capability

TRIALS: Mapping[str, Callable[[], Awaitable[Capability]]] = MappingProxyType(
    {**CONTAINER_TRIALS, **FILE_TRIALS}
)
"""Each gives what came of it, and never raises."""
