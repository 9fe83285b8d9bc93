"""A tutorial as a program: its shell blocks one after the other, and what each says it prints."""

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(sh|output)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One block of commands."""

    commands: str
    printed: tuple[str, ...]
    """Lines whose words its output holds; what stands between them does not matter."""


def steps(page: Path) -> list[Step]:
    """Read the blocks of a page; a block of output belongs to the commands before it."""
    found: list[Step] = []
    for sort, text in _BLOCK.findall(page.read_text()):
        if sort == "sh":
            found.append(Step(text, ()))
        else:
            found[-1] = Step(found[-1].commands, tuple(text.splitlines()))
    return found
