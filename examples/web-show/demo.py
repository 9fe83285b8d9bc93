"""Run the experiments of this folder and show what visitors of the page feel.

    demo.py [--keep] [--picture FILE.svg]

Starts `squall up` with a data directory of its own, three targets, then each experiment: it looks
for a while, injects, looks again, takes back, and looks once more. Shows each request of a visitor
as a bar, before, during and after. The exit status is 0 only if every fault was Confirmed and
every target is as it was. `--keep` leaves the targets running to play with until Ctrl-C;
`--picture` draws the end of the run.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from drawing import FAILED_MS, Run, draw, view
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource
from lightkube.resources.core_v1 import Pod
from rich.console import Console
from rich.live import Live

HERE = Path(__file__).parent
SQUALL = Path(sys.executable).with_name("squall")
CONSOLE = Console()
LOOK_SECONDS = 3.0
TABLES = Path("/var/tmp/web-show")  # noqa: S108  (where the echo keeps its file)


@dataclass
class Visitor:
    """Loads the page every 100 ms and remembers how long each request took."""

    url: str
    stop: Event = field(default_factory=Event)
    latencies_ms: list[float] = field(default_factory=list)

    def visit(self) -> None:
        """Load the page until told to stop."""
        while not self.stop.wait(0.1):
            begun = time.perf_counter()
            try:
                with urlopen(self.url, timeout=FAILED_MS / 1000) as answer:
                    answer.read()
                self.latencies_ms.append((time.perf_counter() - begun) * 1000)
            except (OSError, URLError):
                self.latencies_ms.append(FAILED_MS)


def main(*, keep: bool, picture: Path | None) -> int:
    """Run everything; return the exit status."""
    if os.geteuid() != 0:
        CONSOLE.print("the demo makes network namespaces and cgroups: run it as root")
        return 1
    runs = [Run(yaml.safe_load(file.read_text())) for file in sorted(HERE.glob("[0-9]-*.yaml"))]
    begun = time.monotonic()
    with squall() as directory:
        client = Client(config=KubeConfig.from_file(directory / "kubeconfig"), namespace="default")
        for name in ("echo", "backend", "page"):
            command = [sys.executable, str(HERE / f"{name}.py")]
            squall_run(directory, name, command)
        visitor = Visitor(f"http://{address(client, 'page')}:8080/")
        wait(lambda: answers(visitor.url), "the page answers")
        with visiting(visitor), Live(console=CONSOLE, refresh_per_second=8) as live:
            for run in runs:
                for _ in experiment(client, run, visitor):
                    live.update(view(runs))
            live.update(view(runs))
        CONSOLE.print(f"\n{time.monotonic() - begun:.0f} s in all")
        if picture:
            draw(picture, runs)
        if keep:
            CONSOLE.print(f"still up; export KUBECONFIG={directory / 'kubeconfig'}; Ctrl-C ends")
            pause()
    missed = [run for run in runs if not run.good]
    for run in missed:
        said = f"{run.verdict or 'no verdict'}: {run.measured or 'nothing was measured'}"
        name = run.manifest["metadata"]["name"]
        CONSOLE.print(f"{name} was not shown here. {said if run.restored else 'not taken back'}")
    if missed:
        CONSOLE.print("Figures are told from noise on an idle machine alone; try once more there.")
    return 1 if missed else 0


@contextmanager
def squall() -> Iterator[Path]:
    """Run `squall up` in a directory of its own; stop it and remove the directory afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="squall-demo-"))
    log = directory / "up.log"
    command = [SQUALL, "up", "--data-dir", directory, "--listen", "127.0.0.1:0"]
    command += ["--no-containers"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait(lambda: b"squall is up" in log.read_bytes(), "squall is up", process)
            yield directory
        finally:
            process.terminate()
            status = process.wait(30)
            if status:
                CONSOLE.print(f"squall up ended with {status}:\n{log.read_text()}")
    shutil.rmtree(directory)
    shutil.rmtree(TABLES, ignore_errors=True)


def squall_run(directory: Path, name: str, command: list[str]) -> None:
    """Start one target."""
    verb = [SQUALL, "run", "--kubeconfig", directory / "kubeconfig", "--name", name]
    subprocess.run([*verb, "--label", f"app={name}", "--", *command], check=True)


def wait(holds: Callable[[], bool], what: str, process: subprocess.Popen | None = None) -> None:
    """Look every 50 ms until something holds, for 20 seconds at most."""
    ends = time.monotonic() + 20
    while not holds():
        if time.monotonic() > ends or (process and process.poll() is not None):
            raise SystemExit(f"gave up waiting until {what}")
        time.sleep(0.05)


def address(client: Client, name: str) -> str:
    """Wait until a target is ready; return its IPv4 address."""

    def ready() -> bool:
        pods = list(client.list(Pod))
        return any(p.metadata.name == name and p.status and p.status.podIP for p in pods)

    wait(ready, f"{name} runs")
    return client.get(Pod, name).status.podIP


def answers(url: str) -> bool:
    """Try the page once."""
    try:
        with urlopen(url, timeout=1):
            return True
    except (OSError, URLError):
        return False


@contextmanager
def visiting(visitor: Visitor) -> Iterator[None]:
    """Let the visitor load pages while inside."""
    thread = Thread(target=visitor.visit)
    thread.start()
    try:
        yield
    finally:
        visitor.stop.set()
        thread.join()


def experiment(client: Client, run: Run, visitor: Visitor) -> Iterator[None]:
    """Drive one experiment; yields whenever the picture may have changed."""
    kind = resource(run.manifest)
    name = run.manifest["metadata"]["name"]
    yield from look(run, visitor, "before")
    first = len(visitor.latencies_ms)
    run.stage = "injecting"
    client.create(kind(run.manifest), namespace="default")
    yield from until(lambda: concluded(client, kind, name, run), 20)
    yield from look(run, visitor, "during", first)
    concluded(client, kind, name, run)
    run.stage = "taking back"
    client.delete(kind, name)
    yield from until(lambda: gone(client, kind, name), 20)
    yield from until(lambda: answers(visitor.url), 10)
    waiting = len(visitor.latencies_ms)  # a request that began before does not count as after
    yield from until(lambda: len(visitor.latencies_ms) > waiting, 5)
    yield from look(run, visitor, "after")
    run.restored = gone(client, kind, name) and answers(visitor.url)
    run.stage = "done"


def resource(manifest: dict) -> type[GenericNamespacedResource]:
    """Describe the manifest's kind to the client."""
    group, _, version = manifest["apiVersion"].partition("/")
    kind = manifest["kind"]
    return create_namespaced_resource(group, version, kind, kind.lower())


def look(run: Run, visitor: Visitor, stage: str, first: int | None = None) -> Iterator[None]:
    """Watch the visitor for a while; keep what was felt since request number `first`."""
    run.stage = stage
    first = len(visitor.latencies_ms) if first is None else first
    ends = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < ends:
        time.sleep(0.1)
        run.looks[stage] = visitor.latencies_ms[first:]
        yield


def until(holds: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Yield ten times a second until something holds or the time is over."""
    ends = time.monotonic() + seconds
    while not holds() and time.monotonic() < ends:
        time.sleep(0.1)
        yield


def concluded(client: Client, kind: type[GenericNamespacedResource], name: str, run: Run) -> bool:
    """Read the proofs; take the worst of them."""
    status = client.get(kind, name).status or {}
    records = (status.get("experiment") or {}).get("containerRecords") or []
    proofs = [record.get("proof") or {} for record in records]
    told = [proof for proof in proofs if proof.get("asked")]
    worst = min(told, key=lambda proof: proof["verdict"] == "Confirmed", default={})
    run.verdict, run.measured = worst.get("verdict", ""), worst.get("measured", "")
    return bool(told) and all(proof["verdict"] == "Confirmed" for proof in told)


def gone(client: Client, kind: type[GenericNamespacedResource], name: str) -> bool:
    """Tell whether an experiment has been taken back and is gone."""
    try:
        client.get(kind, name)
    except ApiError as failure:
        return failure.status.code == 404
    return False


def pause() -> None:
    """Wait for Ctrl-C."""
    try:
        Event().wait()
    except KeyboardInterrupt:
        CONSOLE.print("ending")


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run experiments on three small programs.")
    parser.add_argument("--keep", action="store_true", help="leave the targets up until Ctrl-C")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the end of the run, SVG")
    return parser.parse_args()


if __name__ == "__main__":
    # Ended by whoever, it takes everything with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(**vars(asked())))
