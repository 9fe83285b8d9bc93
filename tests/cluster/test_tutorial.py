"""docs/tutorial/cluster.md, followed word by word."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cluster.tutorial import Step, steps

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial/cluster.md"
MARK = "==== end of step"


@pytest.mark.cluster
@pytest.mark.timeout(1200)  # makes a cluster of its own, and images where there are none
def test_the_tutorial_does_what_it_says(machine: None) -> None:
    blocks = steps(PAGE)
    # One shell for all of it, as the reader has: variables last.
    script = "set -e\n" + "".join(f"{one.commands}\necho {shlex.quote(MARK)}\n" for one in blocks)
    try:
        done = subprocess.run(
            ["bash"], input=script, cwd=ROOT, capture_output=True, text=True, check=False
        )
    finally:
        subprocess.run(["make", "cluster-down", "NAME=tutorial"], cwd=ROOT, check=False)
    outputs = done.stdout.split(MARK)
    assert done.returncode == 0, f"{outputs[-1]}\n{done.stderr[-2000:]}"
    for block, output in zip(blocks, outputs, strict=False):
        for line in block.printed:
            assert line in output, f"{block.commands}\nprinted:\n{output}"


def test_a_page_is_read_as_blocks_with_their_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```sh\na\nb\n```\n\nyes\n\n```output\nc\n```\n\n```sh\nd\n```\n")
    assert steps(page) == [Step("a\nb\n", ("c",)), Step("d\n", ())]
