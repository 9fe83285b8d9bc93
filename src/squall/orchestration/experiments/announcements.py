"""The Kubernetes Events of an experiment: upstream's reasons and texts, and a few of our own.

Source: chaos-mesh controllers/utils/recorder.
"""

from squall.api.node_fault import Proof
from squall.injection.contract import Verdict
from squall.orchestration.experiments.facts import Announcement

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
    message = f"Successfully apply chaos for {record_id}"
    return Announcement("Applied", message, "records", fields={"id": record_id})


def recovered(record_id: str) -> Announcement:
    """Say that one target is as it was."""
    message = f"Successfully recover chaos for {record_id}"
    return Announcement("Recovered", message, "records", fields={"id": record_id})


def failed(activity: str, why: str) -> Announcement:
    """Say what did not work.

    Args:
        activity: as upstream: "select targets", "apply chaos", "recover chaos".
        why: the reason.
    """
    fields = {"activity": activity, "err": why}
    return Announcement("Failed", f"Failed to {activity}: {why}", "records", "Warning", fields)


def proven(record_id: str, proof: Proof) -> Announcement:
    """Say what was measured inside one target."""
    asked = f"asked {proof.asked}, " if proof.asked else ""
    good = proof.verdict in {Verdict.CONFIRMED, Verdict.INCONCLUSIVE}
    return Announcement(
        proof.verdict,
        f"{record_id}: {asked}measured {proof.measured or 'nothing'}",
        "records",
        "Normal" if good else "Warning",
        {"id": record_id, "asked": proof.asked, "measured": proof.measured},
    )


def let_go(ids: str, *, forced: bool) -> Announcement:
    """Say that an object is freed although targets did not answer, and which."""
    why = "deletion was forced" if forced else "their nodes stayed silent"
    left = ids or "targets that were never reported"
    text = f"let go because {why}: {left} may be affected until the agent there restores them"
    return failed("recover chaos", text)
