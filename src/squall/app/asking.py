"""`squall health`, before anything else is loaded: kubelet calls it every few seconds."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

ANSWER_SECONDS = 10.0
"""An event loop that has not turned for so long counts as dead."""


def told_directly(arguments: Sequence[str]) -> int | None:
    """Answer `health --socket PATH [--ready]`; None for whatever needs the whole command line."""
    match arguments:
        case ["health", "--socket", path]:
            ready = False
        case ["health", "--socket", path, "--ready"] | ["health", "--ready", "--socket", path]:
            ready = True
        case _:
            return None
    healthy, said = ask(Path(path), ready=ready)
    sys.stdout.write(f"{said}\n")
    return 0 if healthy else 1


def ask(path: Path, *, ready: bool) -> tuple[bool, str]:
    """Ask a process how it is by its Unix socket; returns whether it is well, and its words."""
    question = "/readyz" if ready else "/healthz"
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWER_SECONDS)
            line.connect(str(path))
            line.sendall(f"GET {question} HTTP/1.1\r\nHost: squall\r\n\r\n".encode())
            octets = b""
            while chunk := line.recv(4096):
                octets += chunk
    except OSError as silence:
        why = silence.strerror or f"no answer within {ANSWER_SECONDS:.0f} s"
        return False, f"{path}: {why}"
    head, _, text = octets.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return words[1:2] == [b"200"], text.decode(errors="replace").strip() or "no answer"
