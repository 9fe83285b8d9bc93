"""Debian 12, made by debootstrap from the mirror that this machine itself uses."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from testbed.images.cache import carry_out, fingerprint, kept

SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN = "a Debian host (apt-get) whose sources list the suite " + SUITE
_UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt")


@dataclass(frozen=True, slots=True)
class Source:
    """One line of what apt reads."""

    address: str
    suite: str
    component: str


def base() -> Path:
    """Make the smallest Debian there is, unless that was done before; return its root folder.

    Raises:
        RuntimeError: debootstrap is missing or failed; says what to do.
    """
    mirror = next((one.address for one in sources() if one.suite == SUITE), None)
    if mirror is None:
        raise RuntimeError(f"apt knows no mirror of {SUITE}; it needs {_DEBIAN}")
    return kept("base", fingerprint(SUITE, *_UNREAD), lambda made: _debootstrap(mirror, made))


def sources() -> list[Source]:
    """Read where this machine's apt finds Debian.

    Raises:
        RuntimeError: there is no apt.
    """
    wanted = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    listed = carry_out(
        ["apt-get", "indextargets", *wanted, "Origin: Debian"], needs=_DEBIAN
    ) or carry_out(["apt-get", "indextargets", *wanted], needs=_DEBIAN)
    lines = sorted(set(listed.splitlines()))
    return [Source(*line.split()) for line in lines if line.split()[1].startswith(SUITE)]


def write_apt(folder: Path) -> None:
    """Write an /etc/apt with this machine's mirrors and proxies, to lend to a build.

    Nothing of it is left in an image: where packages come from is a matter of who builds.
    """
    shutil.copytree("/etc/apt/trusted.gpg.d", folder / "trusted.gpg.d")
    for name in ("apt.conf.d", "preferences.d", "sources.list.d", "auth.conf.d"):
        (folder / name).mkdir()
    lines = [f"deb {one.address} {one.suite} {one.component}\n" for one in sources()]
    (folder / "sources.list").write_text("".join(lines))
    told = carry_out(["apt-config", "dump"], needs=_DEBIAN).splitlines()
    proxies = [line for line in told if line.startswith("Acquire::http") and '""' not in line]
    (folder / "apt.conf.d/90-this-machine").write_text("\n".join([*proxies, ""]))


def _debootstrap(mirror: str, made: Path) -> None:
    made.mkdir(mode=0o755)
    carry_out(
        ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", SUITE, made, mirror],
        needs="root, Debian's debootstrap, and the mirror of /etc/apt",
    )
    for path in (*_UNREAD, "var/lib/apt/lists"):
        shutil.rmtree(made / path, ignore_errors=True)
    for path in ("etc/apt/sources.list", "etc/hostname", "etc/resolv.conf"):
        (made / path).unlink(missing_ok=True)
    (made / "var/lib/apt/lists/partial").mkdir(parents=True)
    (made / "var/cache/apt/archives/partial").mkdir(parents=True)
