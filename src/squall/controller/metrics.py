"""What Prometheus may know of the experiments: made from the caches when it asks."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from squall.api.status import Record
from squall.orchestration.experiments.facts import Seen

_TARGET = ("namespace", "kind", "name", "selector_key", "target")


class ExperimentMetrics(Collector):
    """Counts and proofs under upstream's names, and under ours where upstream has none."""

    def __init__(
        self,
        experiments: Callable[[], Iterable[Seen]],
        emitted: Mapping[tuple[str, str, str], int],
        now: Callable[[], datetime],
    ) -> None:
        self._experiments, self._emitted, self._now = experiments, emitted, now

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: names are asked for when there is something to say."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read the caches."""
        seen = list(self._experiments())
        yield self._counts(seen)
        yield self._events()
        yield from _proofs(seen)

    def _counts(self, experiments: Iterable[Seen]) -> Metric:
        gauge = GaugeMetricFamily(
            "chaos_controller_manager_chaos_experiments",
            "Experiments by what they are doing",
            labels=("namespace", "kind", "phase"),
        )
        now = self._now()
        counts = Counter((e.namespace, e.kind, phase_of(e, now)) for e in experiments)
        for labels, number in counts.items():
            gauge.add_metric(labels, number)
        return gauge

    def _events(self) -> Metric:
        counter = CounterMetricFamily(
            "chaos_controller_manager_emitted_event",
            "Kubernetes Events written",
            labels=("type", "reason", "namespace"),
        )
        for labels, number in self._emitted.items():
            counter.add_metric(labels, number)
        return counter


def phase_of(seen: Seen, now: datetime) -> str:
    """Sum an experiment up in one word.

    Source: chaos-mesh pkg/status.
    """
    if seen.deleted:
        return "deleting"
    holds = {c.type for c in seen.status.conditions if c.status == "True"}
    if "Paused" in holds:
        return "paused"
    ended = seen.spec and seen.spec.duration and seen.created + seen.spec.duration <= now
    if ended and "AllRecovered" in holds:
        return "finished"
    return "running" if {"Selected", "AllInjected"} <= holds else "injecting"


def _proofs(experiments: Iterable[Seen]) -> Iterable[Metric]:
    asked = GaugeMetricFamily(
        "squall_fault_asked", "What a fault should do, in words", labels=(*_TARGET, "asked")
    )
    measured = GaugeMetricFamily(
        "squall_fault_measured",
        "What was measured inside the target; names carry their unit",
        labels=(*_TARGET, "way", "moment", "quantity"),
    )
    verdict = GaugeMetricFamily(
        "squall_fault_verdict", "1 for the verdict that holds", labels=(*_TARGET, "verdict")
    )
    for seen in experiments:
        for record in seen.status.experiment.container_records or ():
            if record.proof is None:
                continue
            target = (seen.namespace, seen.kind, seen.name, record.selector_key, record.id)
            asked.add_metric((*target, record.proof.asked), 1)
            verdict.add_metric((*target, record.proof.verdict), 1)
            for moment, quantity, value in _numbers(record):
                measured.add_metric((*target, record.proof.way, moment, quantity), value)
    return asked, measured, verdict


def _numbers(record: Record) -> Iterable[tuple[str, str, float]]:
    if record.proof is None:
        return
    moments = {
        "before": record.proof.before,
        "during": record.proof.during,
        "after": record.proof.after,
    }
    for moment, values in moments.items():
        for quantity, value in values.items():
            yield moment, quantity, value
