"""The wheels that the image installs: ours, and what they need at run time; pinned by hash."""

import re
import shutil
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed.images.cache import carry_out, content, fingerprint, kept

ROOT = Path(__file__).parents[2]
_REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.IGNORECASE)
_ASKED_BY = re.compile(r"^\s+#\s+(?:via\s+)?([a-z0-9][a-z0-9._-]*)$", re.IGNORECASE)
_INDEX = "PyPI, or the index that pip is set to"


def requirements() -> str:
    """Give the part of requirements.lock that the product itself needs, without any tool."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[^\w.-]", one)[0].lower() for one in project["dependencies"]}
    return runtime_part((ROOT / "requirements.lock").read_text(), direct)


def runtime_part(lock: str, direct: set[str]) -> str:
    """Keep those pins of a lock that something in `direct` leads to.

    Args:
        lock: as `uv export` writes it, with `# via` below each pin.
        direct: names of the packages the product asks for itself.
    """
    pins = dict(_pins(lock))
    asked_by = {name: set(_asking(text)) for name, text in pins.items()}
    wanted = set(pins) & direct
    while more := {name for name, by in asked_by.items() if by & wanted} - wanted:
        wanted |= more
    return "".join(text for name, text in pins.items() if name in wanted)


def _asking(text: str) -> Iterator[str]:
    return (found[1].lower() for line in text.splitlines() if (found := _ASKED_BY.match(line)))


def _pins(lock: str) -> Mapping[str, str]:
    """Split a lock into its pins: name, and all lines of it."""
    texts: dict[str, str] = defaultdict(str)
    name = ""
    for line in lock.splitlines(keepends=True):
        if found := _REQUIREMENT.match(line):
            name = found[1].lower()
        if name:
            texts[name] += line
    return texts


def dependencies(pinned: str) -> Path:
    """Fetch the wheels of these pins, for Debian's Python; return their folder.

    Raises:
        RuntimeError: one of them cannot be had, or has another hash than its pin.
    """

    def fetch(made: Path) -> None:
        made.mkdir()
        (made / "requirements.txt").write_text(pinned)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        which = ["--only-binary=:all:", "--python-version=3.11", "--no-deps"]
        carry_out(
            [*pip, *which, "--require-hashes", "--dest=wheels", "-r", "requirements.txt"],
            needs=_INDEX,
            where=made,
        )

    return kept("dependencies", fingerprint(pinned), fetch)


def product() -> list[Path]:
    """Build the wheels of squall and squall-node, each only when its own sources changed.

    Raises:
        RuntimeError: a build failed; with the end of what it said.
    """
    python = [path for path in (ROOT / "src").rglob("*") if _goes_in(path)]
    native = [path for path in (ROOT / "native").rglob("*") if "target" not in path.parts]
    about = [ROOT / "pyproject.toml", ROOT / "README.md"]
    return [
        _wheel("wheel-squall", ROOT, about + python),
        _wheel("wheel-squall-node", ROOT / "native", native),
    ]


def _goes_in(path: Path) -> bool:
    return not {"tests", "__pycache__"} & set(path.parts)


def _wheel(name: str, project: Path, sources: list[Path]) -> Path:
    files = sorted(path for path in sources if path.is_file())
    named = fingerprint(*(str(path.relative_to(project)) for path in files), content(files))

    def build(made: Path) -> None:
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        command = [uv, "build", "--quiet", "--wheel", f"--out-dir={made}", str(project)]
        carry_out(command, needs=f"uv, for squall-node also Rust, and {_INDEX}")

    return next(kept(name, named, build).glob("*.whl"))
