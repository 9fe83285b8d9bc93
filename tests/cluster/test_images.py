"""Which pins of the lock go into the image, and what is kept of what was built."""

from pathlib import Path

import pytest

from testbed.images.cache import KEPT, kept
from testbed.images.wheels import requirements, runtime_part

LOCK = """anyio==4.16.0 \\
    --hash=sha256:aa
    # via
    #   starlette
    #   tester
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:bb
    # via cryptography
cryptography==50.0.2 \\
    --hash=sha256:cc
    # via squall
pytest==9.2.0 \\
    --hash=sha256:dd
    # via squall
starlette==1.0 \\
    --hash=sha256:ee
    # via
    #   squall
    #   tester
tester==4.0 \\
    --hash=sha256:ff
"""


def test_what_the_product_leads_to_is_kept_with_its_hashes() -> None:
    kept = runtime_part(LOCK, {"cryptography", "starlette"})
    assert [line for line in kept.splitlines() if "==" in line] == [
        "anyio==4.16.0 \\",
        "cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\",
        "cryptography==50.0.2 \\",
        "starlette==1.0 \\",
    ]
    assert "sha256:bb" in kept
    assert "sha256:dd" not in kept


def test_no_tool_is_in_the_image() -> None:
    named = {line.partition("==")[0] for line in requirements().splitlines() if "==" in line}
    assert {"pydantic", "pydantic-core", "lightkube"} <= named
    assert not named & {"pytest", "mypy", "ruff", "hypothesis", "schemathesis", "import-linter"}


def test_what_is_there_waits_for_nobody_who_makes_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = kept("part", "0", lambda made: made.touch())

    def make(made: Path) -> None:
        made.write_text(kept("part", "0", lambda _: pytest.fail("made twice")).name)

    assert kept("part", "1", make).read_text() == first.name
    for number in range(2, KEPT + 1):
        kept("part", str(number), lambda made: made.touch())
    assert not first.exists()
