"""Ask a process how it is, as kubelet does."""

import subprocess
from pathlib import Path

from squall.linux.holder import program


def ask(socket: Path, *, ready: bool) -> tuple[bool, str]:
    """Return whether it is well, and its words or the complaint that nobody answers."""
    command = [program(), "health", str(socket), *(["--ready"] if ready else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout or done.stderr).strip()
