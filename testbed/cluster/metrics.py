"""A real Prometheus beside a cluster, for tests of what is scraped and how it is found."""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from testbed.cluster.layout import Layout
from testbed.cluster.namespaces import inside
from testbed.cluster.processes import Processes, end
from testbed.cluster.waiting import until

PORT = 9090
_END_SECONDS = 10.0


@contextmanager
def prometheus(
    layout: Layout, scrape_configs: Sequence[Mapping[str, object]], *, owned: bool
) -> Iterator[str]:
    """Run Debian's Prometheus in the control plane's network; yields its URL.

    Pods are reachable from there by address. Debian's build knows no `kubernetes_sd_configs`:
    name addresses in `static_configs`.
    """
    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": list(scrape_configs)}
    (layout.folder / "prometheus.json").write_text(json.dumps(settings))  # JSON is YAML, too
    url = f"http://{layout.address}:{PORT}"
    command = [
        "prometheus",
        "--config.file=prometheus.json",
        f"--storage.tsdb.path={layout.memory}/prometheus",
        f"--web.listen-address={layout.address}:{PORT}",
        "--log.level=warn",
    ]
    running = Processes(layout)
    process = running.start("prometheus", inside(layout.net, *command), owned=owned)
    try:
        until("prometheus", lambda: answers(f"{url}/-/ready"), runs=process)
        yield url
    finally:
        end([process], _END_SECONDS)


def answers(url: str) -> bool:
    """Say whether a GET succeeds."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5):
            return True
    except OSError:
        return False
