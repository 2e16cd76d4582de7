"""The process in which regular expressions of strangers are compiled and matched; :mod:`.patterns` starts it.

Imports nothing but the standard library, and runs by its path, so that it is there in a moment.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any


def limit(seconds: int, size: int) -> None:
    """End this process once it has computed for so long; let it have no more memory than that."""
    try:
        import resource
    except ImportError:  # not on this system; whoever waits has a limit of its own
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def answer(pattern: str, names: list[str]) -> dict[str, Any]:
    """The names that match as a whole, or why the pattern is none."""
    try:
        compiled = re.compile(pattern)
        return {"names": [name for name in names if compiled.fullmatch(name)]}
    except MemoryError:
        return {"error": "takes too much memory"}
    except (re.error, RecursionError, OverflowError) as error:
        return {"error": f"is no regular expression: {error}"}


def main() -> None:
    """Answer for each pattern in turn, a line each, so that it is known which one ended the process."""
    asked = json.load(sys.stdin)
    limit(asked["seconds"], asked["bytes"])
    for pattern in asked["patterns"]:
        sys.stdout.write(json.dumps(answer(pattern, asked["names"])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
