"""Squall as these tests install it: by helm, with a short lease."""

from testbed.cluster import Cluster
from tests.cluster.charts import CHART, NAMESPACE, helm
from tests.cluster.survival.scene import LEASE_SECONDS, PAUSE

_VALUES = (f"leaseSeconds={LEASE_SECONDS}", f"controller.pauseImage={PAUSE}")
_WAIT = ("--wait", "--timeout=4m")


def install(cluster: Cluster, *values: str) -> None:
    """Install it, or change what is installed, and wait until it is ready."""
    sets = [f"--set={value}" for value in (*_VALUES, *values)]
    to = (f"--namespace={NAMESPACE}", "--create-namespace")
    helm("upgrade", "--install", "squall", CHART, *to, *_WAIT, *sets, server=cluster)


def uninstall(cluster: Cluster) -> None:
    """Remove it."""
    helm("uninstall", "squall", f"--namespace={NAMESPACE}", *_WAIT, server=cluster)
