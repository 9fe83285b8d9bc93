"""The Kubernetes Events of an experiment: upstream's reasons and texts, and a few of our own.

Source: chaos-mesh controllers/utils/recorder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from squall.api.node_fault import Proof
from squall.injection.contract import Verdict
from squall.orchestration.experiments.facts import Announcement

LONGEST_MESSAGE = 1024
"""Characters in an Event, by the API's own rule."""

FINALIZER_INITED = Announcement("FinalizerInited", "Finalizer has been inited", "initFinalizers")
STARTED = Announcement("Started", "Experiment has started", "desiredphase")
PAUSED = Announcement("Paused", "Experiment has been paused", "desiredphase")
TIME_UP = Announcement("TimeUp", "Time up according to the duration", "desiredphase")
DELETED = Announcement("Deleted", "Experiment has been deleted", "desiredphase")


def halted(reason: str) -> Announcement:
    """Say that the kill switch stopped the experiment for good."""
    text = f"Experiment was interrupted: {reason}; pause and resume it to run it again"
    return Announcement("Interrupted", text, "desiredphase", "Warning", {"err": reason})


def applied(record_id: str) -> Announcement:
    """Say that one target has the fault."""
    return _of_target("Applied", "Successfully apply chaos for", record_id)


def recovered(record_id: str) -> Announcement:
    """Say that one target is as it was."""
    return _of_target("Recovered", "Successfully recover chaos for", record_id)


def failed(activity: str, why: str) -> Announcement:
    """Say what did not work.

    Args:
        activity: as upstream: "select targets", "apply chaos", "recover chaos".
        why: the reason.
    """
    fields = {"activity": activity, "err": why}
    return Announcement("Failed", f"Failed to {activity}: {why}", "records", "Warning", fields)


def failed_on(record_id: str, activity: str, why: str) -> Announcement:
    """Say what did not work on one target."""
    said = failed(activity, f"{record_id}: {why}")
    return replace(said, target=record_id, detail=why, several=f"Failed to {activity} for")


def passed_over(record_id: str, why: str) -> Announcement:
    """Say that a pod matches and is not hit: nobody on its node could, or nobody may."""
    fields = {"id": record_id, "err": why}
    return Announcement(
        "PassedOver", f"{record_id} {why}", "selection", "Warning", fields,
        target=record_id, detail=why, several="not hit:",
    )  # fmt: skip


def proven(record_id: str, proof: Proof) -> Announcement:
    """Say what was measured inside one target."""
    asked = f"asked {proof.asked}, " if proof.asked else ""
    measured = proof.measured or "nothing"
    good = proof.verdict in {Verdict.CONFIRMED, Verdict.INCONCLUSIVE}
    return Announcement(
        proof.verdict,
        f"{record_id}: {asked}measured {measured}",
        "records",
        "Normal" if good else "Warning",
        {"id": record_id, "asked": proof.asked, "measured": proof.measured},
        target=record_id,
        detail=measured,
        several=f"{asked}measured in",
    )


def let_go(ids: str, *, forced: bool) -> Announcement:
    """Say that an object is freed although targets did not answer, and which."""
    why = "deletion was forced" if forced else "their nodes stayed silent"
    left = ids or "targets that were never reported"
    text = f"let go because {why}: {left} may be affected until the agent there restores them"
    return failed("recover chaos", text)


def gathered(said: Iterable[Announcement]) -> list[Announcement]:
    """Say at once what is the same for several targets: forty of them make one event, not forty.

    What is said of one target, or of none, stays as it is.
    """
    groups: dict[tuple[str, str, str], list[Announcement]] = {}
    for number, one in enumerate(said):
        key = (one.reason, one.type, one.several if one.target else str(number))
        groups.setdefault(key, []).append(one)
    return [group[0] if len(group) == 1 else _together(group) for group in groups.values()]


def _together(group: Sequence[Announcement]) -> Announcement:
    first = group[0]
    alike = len({one.detail for one in group}) == 1
    about = f" ({first.detail})" if alike and first.detail else ""
    begin = f"{first.several} {len(group)} targets{about}: "
    each = [one.target if alike else f"{one.target}: {one.detail}" for one in group]
    room = LONGEST_MESSAGE - len(begin)
    same = {key: text for key, text in first.fields.items() if _common(group, key)}
    ids = _listed([one.target for one in group], ",", LONGEST_MESSAGE)
    return replace(
        first,
        message=begin + _listed(each, ", " if alike else "; ", room),
        fields={**same, "id": ids, "targets": str(len(group))},
    )


def _listed(items: Sequence[str], separator: str, room: int) -> str:
    """Join what fits into so many characters, and count the rest."""
    whole = separator.join(items)
    if len(whole) <= room:
        return whole
    kept = list(items)
    more = ""
    while kept and len(separator.join(kept)) + len(more) > room:
        kept = kept[: min(len(kept) - 1, len(kept) * room // len(separator.join(kept)))]
        more = f"{separator}and {len(items) - len(kept)} more"
    return separator.join(kept) + more


def _common(group: Sequence[Announcement], key: str) -> bool:
    return len({one.fields.get(key) for one in group}) == 1


def _of_target(reason: str, begin: str, record_id: str) -> Announcement:
    return Announcement(
        reason,
        f"{begin} {record_id}",
        "records",
        fields={"id": record_id},
        target=record_id,
        several=begin,
    )
