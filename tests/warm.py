"""The command in processes of its own that find all libraries imported, which takes longer than most of what they do.

One process imports everything once and forks a child for each command line. What libraries read of the environment when
they are imported is then settled, so whoever sets anything but our own variables gets a process from the beginning.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TextIO

# What does not say how libraries are imported: our own variables, what says which test runs, what is read of the terminal
# when something is printed, what libraries set themselves when a test imports them, and what the command sets for them.
_FREE = (
    "FEATHERWEIGHT_", "PYTEST_", "COLUMNS", "KMP_", "TORCHINDUCTOR_", "RAY_", "TUNE_", "GOMP_SPINCOUNT",
    "TOKENIZERS_PARALLELISM", "TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS",
)  # fmt: skip
_FILES = ("stdin", "stdout", "stderr")


class Warm:
    """The forking process, begun when it is first asked, in the environment of now or in another one."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._environment = dict(os.environ if environment is None else environment)
        self._folder = tempfile.TemporaryDirectory()
        self._numbers = count()

    def fits(self, environment: Mapping[str, str] | None = None) -> bool:
        """Whether an environment, that of now if none is given, is the one that libraries were imported in."""
        return not self.unlike(environment)

    def unlike(self, environment: Mapping[str, str] | None = None) -> set[str]:
        """The variables that are not as they were then."""
        now, then = (_bound(one) for one in (os.environ if environment is None else environment, self._environment))
        return {name for name, _ in now.items() ^ then.items()}

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        given: str = "",
        timeout: float = 600,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One command line with ``given`` on its standard input, in the environment of now or in another one.

        Raises:
            subprocess.TimeoutExpired: it took longer, and was killed.
        """
        files = {name: Path(self._folder.name) / name for name in _FILES}
        files["stdin"].write_text(given, encoding="utf-8")
        process = self._fork(arguments, cwd, list(files.values()), environment)
        code = self.ended(process, timeout)
        if code is None:
            os.kill(process, signal.SIGKILL)
            self.ended(process, timeout)
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        output, errors = (files[name].read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(list(arguments), code, output, errors)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Started:
        """A command line that goes on; nobody reads its standard output."""
        lines = Path(self._folder.name) / f"lines-{next(self._numbers)}"
        os.mkfifo(lines)
        process = self._fork(arguments, Path.cwd(), [Path(os.devnull), Path(os.devnull), lines], environment)
        return Started(self, process, lines.open(encoding="utf-8"))

    def ended(self, process: int, timeout: float) -> int | None:
        """The exit code of a child, which is known once; None where it goes on for longer."""
        code: int | None = self._ask({"wait": process, "timeout": timeout})
        return code

    def _fork(
        self, arguments: Sequence[str], cwd: Path, files: Sequence[Path], environment: Mapping[str, str] | None
    ) -> int:
        process: int = self._ask({
            "arguments": list(arguments), "cwd": str(cwd), "files": [str(path) for path in files],
            "environment": dict(os.environ if environment is None else environment),
        })  # fmt: skip
        return process

    def _ask(self, request: dict[str, Any]) -> Any:
        server = self._begin()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    def child(self) -> int:
        """The process of the command line that runs now."""
        assert self._server is not None
        process = self._server.pid
        (found,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return int(found)

    def close(self) -> None:
        if self._server is not None:
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.close()
            self._server.wait(30)
            self._server.stdout.close()
        self._folder.cleanup()

    def _begin(self) -> subprocess.Popen[str]:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=self._environment,
            )  # fmt: skip
        return self._server


@dataclass
class Started:
    """A forked command that goes on, as ``subprocess.Popen`` has it.

    Attributes:
        stderr: its lines, to the end of the process.
    """

    _warm: Warm
    pid: int
    stderr: TextIO
    returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._warm.ended(self.pid, 0)
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        if self.returncode is None:
            self.returncode = self._warm.ended(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode


_shared: list[Warm] = []


def shared() -> Warm:
    """That of this process, in the environment that it was first asked for in."""
    if not _shared:
        _shared.append(Warm())
        atexit.register(_shared[0].close)
    return _shared[0]


def _bound(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if not key.startswith(_FREE)}


def serve() -> None:
    """Import everything, then fork a child for each line of standard input."""
    from injector import import_everything

    from featherweight.cli.arguments import quiet_libraries

    quiet_libraries()
    import_everything()
    gc.freeze()  # or the collector of each child would write to, and so copy, all of these objects
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    for number in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    for line in requests:
        request = json.loads(line)
        if "wait" in request:
            answers.write(json.dumps(_waited(request["wait"], request["timeout"])) + "\n")
            continue
        child = os.fork()
        if child == 0:
            _child(request)
        answers.write(f"{child}\n")


def _waited(child: int, timeout: float) -> int | None:
    """The exit code; None where there is none by then."""
    end = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)


def _child(request: dict[str, Any]) -> None:
    code: Any = 1
    try:
        flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
        for number, (path, flag) in enumerate(zip(request["files"], flags, strict=True)):
            os.dup2(os.open(path, flag), number)
        for number, name in enumerate(_FILES):
            stream = io.TextIOWrapper(os.fdopen(number, "wb" if number else "rb"), "utf-8", line_buffering=number == 2)
            setattr(sys, name, stream)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        from featherweight import cli

        code = cli.main(request["arguments"])
    except SystemExit as exit:  # argparse's
        code = exit.code or 0
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
