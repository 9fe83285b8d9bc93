"""Run the native crate's tests on Debian's kernel for 64-bit Arm, in an emulated machine.

`python -m testbed.aarch64 PROGRAM [ARGUMENTS...]`, which is how cargo calls a runner, starts
PROGRAM, which is built for that machine, as root in a file system of nothing but memory, and ends
with its exit status. What the machine consists of comes from the Debian mirror that this host
has, once; nothing is installed.
"""

import gzip
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.images.cache import carry_out, fingerprint, kept

KERNEL = "linux-image-cloud-arm64"
PACKAGES = (
    *("busybox-static", "libc6", "libgcc-s1"),
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),  # targets of tests
    *("zlib1g", "libexpat1", "libssl3", "libffi8"),  # what these need
)
MODULES = ("fuse", "inet_diag", "tcp_diag")
"""In the order in which they are loaded."""
MIRROR = "Debian's mirror for arm64"

MACHINE = (
    *("qemu-system-aarch64", "-machine", "virt", "-accel", "tcg,thread=multi"),
    # All that the emulator knows; pointers are signed by what is quick to emulate.
    *("-cpu", "max,pauth-impdef=on", "-smp", "2", "-m", "1024"),
    *("-nographic", "-no-reboot", "-nic", "none"),
    *("-append", "console=ttyAMA0 quiet panic=-1"),
)
TIMEOUT_SECONDS = 900.0
"""For a machine that is busy; on a quiet one it is two minutes."""

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp SQUALL_TEST_EMULATED=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for directory in /tmp /var/tmp /run; do mount -t tmpfs tmpfs $directory; done
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
uname -srvm
{command} 2>&1
echo "ended with $?."
poweroff -f
"""
ENDED = re.compile(rb"ended with (\d+)\.\r?\n")


def run(program: Path, arguments: Sequence[str]) -> int:
    """Return the exit status of the program, whose output is printed.

    Raises:
        RuntimeError: something is missing, or the machine did not come to an end by itself.
    """
    if shutil.which(MACHINE[0]) is None:
        raise RuntimeError(f"no {MACHINE[0]}: run testbed/system.sh machine")
    machine = _machine()
    command = shlex.join(["/program", *arguments])
    with tempfile.TemporaryDirectory() as scratch:
        more = Path(scratch, "more")
        more.mkdir()
        strip = ("aarch64-linux-gnu-strip", "-o", more / "program", program)
        carry_out(strip, needs="testbed/system.sh")
        (more / "init").write_text(INIT.format(modules=" ".join(MODULES), command=command))
        (more / "init").chmod(0o755)
        memory = Path(scratch, "memory")
        # The kernel takes one archive after the other.
        memory.write_bytes((machine / "files").read_bytes() + _archive(more))
        files = ("-kernel", machine / "kernel", "-initrd", memory)
        output = Path(scratch, "output")
        with output.open("wb") as log:
            done = subprocess.run(
                (*MACHINE, *files),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        said = output.read_bytes()
    print(said.decode(errors="replace"), flush=True)
    ended = ENDED.search(said)
    if ended is None:
        raise RuntimeError(f"the machine ended ({done.returncode}), and its program did not")
    return int(ended[1])


def _machine() -> Path:
    """Return the directory with the kernel and with all files but the program."""
    return kept("aarch64", fingerprint(KERNEL, *PACKAGES, *MODULES), _make)


def _make(machine: Path) -> None:
    machine.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        root, kernel = Path(scratch, "root"), Path(scratch, "kernel")
        for directory in ("modules", "tmp", "var/tmp", "root"):
            (root / directory).mkdir(parents=True)
        for name in ("bin", "dev", "proc", "run", "sys"):
            (root / name).mkdir()
        for package in _fetched(Path(scratch, "apt")):
            to = kernel if package.name.startswith("linux-image") else root
            carry_out(("dpkg-deb", "--extract", package, to), needs="room for it")
        shutil.rmtree(root / "usr/share")
        (root / "bin/sh").symlink_to("busybox")
        (root / "usr/bin/python3").symlink_to("python3.11")
        for module in MODULES:
            (found,) = kernel.rglob(f"{module}.ko")
            shutil.copy(found, root / "modules")
        (image,) = kernel.glob("boot/vmlinuz-*")
        shutil.copy(image, machine / "kernel")
        (machine / "files").write_bytes(_archive(root))


def _fetched(state: Path) -> list[Path]:
    """Fetch packages for that machine, with lists of packages of its own."""
    for directory in ("lists/partial", "cache/archives/partial"):
        (state / directory).mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::Status": state / "status",
        "Dir::Cache": state / "cache",
    }
    apt = [
        "apt-get",
        "--quiet=2",
        *(f"--option={name}={value}" for name, value in settings.items()),
    ]
    print("fetching a kernel and programs for 64-bit Arm from Debian, once", flush=True)
    carry_out((*apt, "update"), needs=MIRROR)
    about = carry_out(("apt-cache", *apt[2:], "show", "--no-all-versions", KERNEL), needs=MIRROR)
    if (version := re.search(r"^Depends: (linux-image-\S+)", about, re.MULTILINE)) is None:
        raise RuntimeError(f"{KERNEL} names no kernel")
    carry_out((*apt, "download", version[1], *PACKAGES), needs=MIRROR, where=state)
    return sorted(state.glob("*.deb"))


def _archive(root: Path) -> bytes:
    """Pack a directory as the kernel takes it for its first file system."""
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    pack = ["busybox", "cpio", "-o", "-H", "newc", "-R", "0:0"]
    packed = subprocess.run(pack, input=names.encode(), cwd=root, capture_output=True, check=True)
    return gzip.compress(packed.stdout, compresslevel=1)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
