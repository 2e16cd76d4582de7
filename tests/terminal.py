"""A command in a terminal of a given width, and what it wrote there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path


def written(arguments: Sequence[str | Path], folder: Path, columns: int = 80, **environment: str) -> str:
    """All that ``featherweight`` with these arguments writes to a terminal, control sequences and all."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "featherweight", *map(str, arguments)],
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm-256color", **environment},
        cwd=folder,
    )
    os.close(child)
    output = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
    process.wait(timeout=60)
    os.close(parent)
    return output.decode()


def lines(output: str) -> list[str]:
    """The lines that were on the screen at one time or another, without control sequences."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output))
