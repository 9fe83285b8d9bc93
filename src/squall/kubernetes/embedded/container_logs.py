"""`kubectl logs`: what a container wrote, as it was or as it comes."""

import asyncio

from starlette.types import ASGIApp

from squall.api.cluster import Object
from squall.kubernetes.embedded.exchange import Query
from squall.kubernetes.embedded.refusals import bad_request
from squall.kubernetes.embedded.runtime import Runtime
from squall.kubernetes.embedded.streams import Stream


def logs(pod: Object, query: Query, runtime: Runtime, stopping: asyncio.Event) -> ASGIApp:
    """Answer `pods/NAME/log`.

    Raises:
        ApiError: 400, there is no such container, or none was named where there are several.
    """
    parts = runtime.logs(
        pod,
        container_of(pod, query.text("container")),
        follow=query.flag("follow"),
        tail_lines=query.number("tailLines"),
        limit_bytes=query.number("limitBytes"),
    )
    return Stream(parts, "text/plain", stopping, head_first=False)


def container_of(pod: Object, asked: str) -> str:
    """Settle which container of a Pod is meant.

    Raises:
        ApiError: 400, see `logs`.
    """
    name = pod["metadata"]["name"]
    names = [container["name"] for container in pod["spec"]["containers"]]
    if asked and asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    if not asked and len(names) > 1:
        raise bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
        )
    return asked or str(names[0])
