"""The four conditions of an experiment, always in the same order."""

from collections.abc import Mapping, Sequence

from squall.api.status import INJECTED, NOT_INJECTED, Condition, Record

_LONGEST_REASON = 500


def conditions(
    records: Sequence[Record] | None, *, paused: bool, reasons: Mapping[str, str]
) -> list[Condition]:
    """Sum up how the experiment stands.

    Args:
        records: every target, or None before any was chosen.
        paused: was it asked to pause?
        reasons: by type, why a condition is not what it should be.
    """
    phases = [record.phase for record in records or ()]
    holds = {
        "Selected": records is not None,
        "AllInjected": bool(phases) and all(phase == INJECTED for phase in phases),
        "AllRecovered": records is not None and all(phase == NOT_INJECTED for phase in phases),
        "Paused": paused,
    }
    return [
        Condition.model_validate(
            {
                "type": name,
                "status": "True" if held else "False",
                "reason": None if held else reasons.get(name, "")[:_LONGEST_REASON] or None,
            }
        )
        for name, held in holds.items()
    ]
