"""What agents tell of their nodes, and whether a fault can be brought about there at all."""

from collections.abc import Collection, Mapping

from squall.api.metadata import MISSING

Abilities = Mapping[str, str]
"""By need of a fault kind: `ok`, `fallback`, or `missing: ` and why."""


def why_no_agent(node: str, needs: Collection[str], agents: Mapping[str, Abilities] | None) -> str:
    """Say why nobody on a node can bring a fault about; empty when somebody can.

    Args:
        node: name of the node.
        needs: what the fault takes, as `FaultKind.needs` names it.
        agents: what each node with an agent can do; None where nobody has to know.
    """
    if agents is None:
        return ""
    if node not in agents:
        return f"cannot be reached: no agent runs on node {node}"
    for need in needs:
        word = agents[node].get(need)
        if word is None:
            return f"cannot be hit: the agent of node {node} does not know {need}; is it older?"
        if word.startswith(MISSING):
            why = word.removeprefix(MISSING).strip(": ")
            return f"cannot be hit: node {node} cannot: {need}: {why}"
    return ""
