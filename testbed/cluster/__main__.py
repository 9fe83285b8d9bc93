"""Start clusters and take them down: `python -m testbed.cluster up --nodes 2`."""

import argparse
import os
import sys
import time
from pathlib import Path

from testbed import cluster as clusters
from testbed.cluster.layout import DEFAULT_NAME
from testbed.kubernetes.build import programs


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m testbed.cluster", description=__doc__)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default=DEFAULT_NAME, help="which cluster (%(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    starting = verbs.add_parser("up", parents=[named], help="start a cluster, wait until ready")
    starting.add_argument("--nodes", type=int, default=2, help="how many (%(default)s)")
    verbs.add_parser("down", parents=[named], help="remove it with all that belongs to it")
    loading = verbs.add_parser("load", parents=[named], help="import images on every node")
    loading.add_argument("archives", type=Path, nargs="+", help="docker-archives")
    shell = verbs.add_parser("sh", parents=[named], help="run a command with KUBECONFIG set")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    try:
        _do(asked)
    except (RuntimeError, ValueError) as failure:
        sys.exit("\n".join([str(failure), *getattr(failure, "__notes__", ())]))


def _do(asked: argparse.Namespace) -> None:
    if asked.verb == "up":
        began = time.monotonic()
        cluster = clusters.up(asked.name, asked.nodes)
        print(f"{asked.nodes} nodes ready in {time.monotonic() - began:.1f} s", file=sys.stderr)
        print(f"export KUBECONFIG={cluster.kubeconfig} PATH={programs()}:$PATH")
    elif asked.verb == "down":
        if not clusters.down(asked.name):
            print(f"there was no cluster {asked.name}", file=sys.stderr)
    elif asked.verb == "load":
        clusters.attach(asked.name).load(*asked.archives)
    else:
        cluster = clusters.attach(asked.name)
        os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
        os.environ["PATH"] = f"{programs()}:{os.environ['PATH']}"
        command = asked.command or [os.environ.get("SHELL", "sh")]
        os.execvp(command[0], command)  # noqa: S606  (what the user asked for)


if __name__ == "__main__":
    main()
