"""The command in several processes, as a launcher starts them, each forked from one that has imported everything. No
launcher watches over them: what ends them all when one ends is their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Ended:
    """How one of the processes ended.

    Attributes:
        code: exit code, or minus the signal that ended it.
        output, errors: its standard output and standard error.
        seconds: from when the first of them ended.
    """

    code: int
    output: str
    errors: str
    seconds: float


class Ranks:
    """The forking process.

    Args:
        folder: for the processes' output.
        warm: a command line that is run before any process is forked, for what is done once in a process.
    """

    def __init__(self, folder: Path, warm: Sequence[str]) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, __file__, *warm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    def run(
        self, arguments: Sequence[str | Path], codes: Mapping[int, str] | None = None, size: int = 2
    ) -> list[Ended]:
        """Run one command line in ``size`` processes, in the order of their ranks.

        Args:
            codes: Python that a process runs first, by its rank.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        chosen = {str(rank): code for rank, code in (codes or {}).items()}
        request = {"arguments": [str(one) for one in arguments], "codes": chosen, "size": size}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        ended = json.loads(self._server.stdout.readline())
        said = [[(self.folder / f"{name}-{rank}").read_text() for name in ("output", "errors")] for rank in range(size)]
        return [Ended(code, *texts, seconds) for (code, seconds), texts in zip(ended, said, strict=True)]

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()


def serve() -> None:
    """Import everything, then fork children for each line of standard input."""
    from injector import import_everything

    from featherweight import cli
    from featherweight.cli.arguments import quiet_libraries

    quiet_libraries()
    import_everything()
    _measure_once()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    cli.main(sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        children = []
        for rank in range(request["size"]):
            child = os.fork()
            if child == 0:
                _child(request, rank, port)
            children.append(child)
        answers.write(json.dumps(_waited(children)) + "\n")


def _measure_once() -> None:
    """On a busy machine each process would measure anew, and might choose another library for products."""
    from featherweight.engine.fast import kernels, machine_speed

    kernels.load()
    found = replace(machine_speed._measure(), undisturbed=True)
    machine_speed._measure = lambda: found
    machine_speed.probe()


def _waited(children: list[int]) -> list[tuple[int, float]]:
    """The exit code of each, and how long after the first it ended; whoever takes far too long is killed."""
    ended: dict[int, tuple[int, float]] = {}
    begun = first = time.monotonic()
    while len(ended) < len(children):
        child, status = os.waitpid(-1, os.WNOHANG)
        now = time.monotonic()
        if child:
            first = first if ended else now
            ended[child] = os.waitstatus_to_exitcode(status), now - first
        elif now - begun > _PATIENCE:
            for one in set(children) - ended.keys():
                os.kill(one, signal.SIGKILL)
        time.sleep(0.002)
    return [ended[child] for child in children]


def _child(request: dict[str, Any], rank: int, port: int) -> None:
    code = 70
    try:
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(f"{name}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        size = str(request["size"])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        from featherweight import cli

        exec(request["codes"].get(str(rank), ""), {})
        code = cli.main(request["arguments"])
    except SystemExit as exit:
        code = int(exit.code or 0)
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
