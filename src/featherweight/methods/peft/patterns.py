"""Regular expressions of strangers, which can be written to take any time or memory: compiled and matched in a process
of their own, under limits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_MAX_LENGTH = 2_000  # characters of one
_MAX_PATTERNS = 1_000
_SECONDS = 1  # of computing, for all together
_BYTES = 256 << 20
_PATIENCE = 60  # seconds for the process in all, on a machine that is busy


class PatternError(Exception):
    """A pattern that can't be had. Carries its key, and what is wrong as the rest of a sentence."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key} {reason}")
        self.key = key
        self.reason = reason


def matching(patterns: Mapping[str, str], names: Sequence[str]) -> dict[str, list[str]]:
    """Which of the names each pattern matches as a whole, as :func:`re.fullmatch` does.

    Args:
        patterns: each under a key of the caller's.

    Raises:
        PatternError: one is no regular expression, or takes too long or too much memory.
    """
    if not patterns:
        return {}
    keys = list(patterns)
    if len(keys) > _MAX_PATTERNS:
        raise PatternError(keys[0], f"and {len(keys) - 1:,} others are more than {_MAX_PATTERNS:,} patterns")
    if long := [key for key in keys if len(patterns[key]) > _MAX_LENGTH]:
        raise PatternError(long[0], f"is longer than {_MAX_LENGTH:,} characters")
    asked = {"patterns": list(patterns.values()), "names": list(names), "seconds": _SECONDS, "bytes": _BYTES}
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("match.py"))]
    try:
        ended = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        lines = ended.stdout.splitlines()
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").decode().splitlines()
    answers = [json.loads(line) for line in lines]
    for key, answer in zip(keys, answers, strict=False):
        if "error" in answer:
            raise PatternError(key, answer["error"])
    if len(answers) < len(keys):
        raise PatternError(keys[len(answers)], "takes too long to match; list the modules by name instead")
    return {key: answer["names"] for key, answer in zip(keys, answers, strict=True)}
