"""What the demo knows of each experiment, and how it is drawn on a terminal or as a picture."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
SLOTS = 24  # bars of one stage
STAGES = {"before": "green", "during": "yellow", "after": "green"}
VERDICTS = {"Confirmed": "bold green", "Mismatch": "bold red"}
FAILED_MS = 1000.0  # a request without an answer counts as this long


@dataclass
class Run:
    """What one experiment did, as far as it has come."""

    manifest: dict
    stage: str = "waiting"
    looks: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of each request, by stage."""
    verdict: str = ""
    measured: str = ""
    restored: bool = False

    @property
    def good(self) -> bool:
        """Was it felt, and is everything as it was?"""
        return self.verdict == "Confirmed" and self.restored


def view(runs: list[Run]) -> Group:
    """Draw every experiment: what it is, what visitors felt, what was measured."""
    return Group(*(Padding(drawing(run), (0, 0, 1, 0)) for run in runs))


def drawing(run: Run) -> Group:
    """Draw one experiment, in 78 columns or more."""
    manifest = run.manifest
    name = Text.assemble((manifest["metadata"]["name"], "bold"), f"  {manifest['kind']}")
    state = Text(run.verdict or run.stage, VERDICTS.get(run.verdict, "dim"), justify="right")
    if run.stage == "done":
        back = (", taken back", "green") if run.restored else (", NOT taken back", "bold red")
        state.append(*back)
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    head.add_row(name, state)
    stages = Table.grid(padding=(0, 2))
    stages.add_row(*(bars(run.looks.get(stage, []), colour) for stage, colour in STAGES.items()))
    stages.add_row(*(Text(f"{stage} {felt(run.looks.get(stage))}", "dim") for stage in STAGES))
    parts = [head, Text(manifest["metadata"]["annotations"]["title"]), stages]
    if run.measured:
        parts.append(Text(f"measured inside: {run.measured}", "italic"))
    return Group(*parts)


def felt(latencies_ms: list[float] | None) -> str:
    """Say in a word how requests were answered."""
    if not latencies_ms:
        return ""
    failed = sum(value >= FAILED_MS for value in latencies_ms)
    if failed:
        return f"{failed} of {len(latencies_ms)} failed"
    return f"{median(latencies_ms):.1f} ms"


def bars(latencies_ms: list[float], colour: str) -> Text:
    """Draw requests as bars on a logarithmic scale, failures red; many share a bar."""
    text = Text()
    share = max(1.0, len(latencies_ms) / SLOTS)
    for slot in range(min(SLOTS, len(latencies_ms))):
        value = max(latencies_ms[int(slot * share) : max(int((slot + 1) * share), 1)])
        height = min(len(BARS) - 1, max(0, int(value).bit_length() - 2))
        text.append(BARS[height], "red" if value >= FAILED_MS else colour)
    text.append(" " * (SLOTS - len(text)))
    return text


def draw(file: Path, runs: list[Run]) -> None:
    """Write the end of the run as a picture that needs nothing from anywhere else."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=84, file=nowhere, force_terminal=True)
        console.print("$ make demo\n", view(runs), sep="\n", end="")
    picture = console.export_svg(title="squall", unique_id="demo")
    # The export refers to fonts at a public host; whatever is fixed-width here does as well.
    picture = re.sub(r"\s*@font-face \{.*?\}\n", "\n", picture, flags=re.DOTALL)
    file.write_text(re.sub(r"\s*<!--.*?-->", "", picture, flags=re.DOTALL))
