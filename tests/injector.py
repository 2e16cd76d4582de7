"""Runs with faults in them, by the hundred: one process imports everything once and forks a child for each run.

The faults are real: ``faults.c``, preloaded, kills the child at its n-th write, or makes that call fail; or a signal
comes after so many seconds. Nothing of Featherweight is replaced.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ACTIONS = {"count": 0, "kill": 1, "fail": 2, "tear": 3, "fail from": 4}


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code, or minus the signal that ended it.
        calls: changes of files below the watched folder; -1 where the run was killed.
        errors: its standard error.
        seconds: wall clock.
    """

    code: int
    calls: int
    errors: str
    seconds: float


def build(folder: Path) -> Path:
    """Compile the library. Raises FileNotFoundError where the machine has no C compiler."""
    library = folder / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "faults.c"), "-ldl"], check=True)
    return library


class Injector:
    """The forking process.

    Args:
        folder: for the library and the children's output.
        library: of :func:`build`.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "injector.py"), str(library), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        below: Path | None = None,
        at: int = -1,
        action: str = "count",
        error: int = 0,
        signals: Sequence[tuple[float, int]] = (),
        code: str = "",
        cwd: Path | None = None,
    ) -> Ended:
        """Run one command line in a child.

        Args:
            below: the folder whose changes are counted.
            at: which of them the fault strikes, counted from 1.
            action: one of :data:`ACTIONS`.
            error: errno of a call that fails.
            signals: seconds after the start, and which signal to send then.
            code: Python that the child runs first.
            cwd: the child's working directory.
        """
        request = {
            "arguments": [str(one) for one in arguments], "below": str(below or ""), "at": at,
            "action": ACTIONS[action], "errno": error, "signals": [list(one) for one in signals], "code": code,
            "cwd": str(cwd or self.folder),
        }  # fmt: skip
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        calls = self.folder / "calls"
        errors = (self.folder / "errors").read_text(encoding="utf-8", errors="replace")
        return Ended(answer["code"], int(calls.read_text()) if calls.exists() else -1, errors, answer["seconds"])

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)
        assert self._server.stdout is not None
        self._server.stdout.close()


def striking(target: str, call: int, *numbers: int) -> str:
    """Python that sends the process signals at the start of the ``call``-th call of ``module:function``."""
    kills = "; ".join(f"os.kill(os.getpid(), {int(number)})" for number in numbers)
    return wrapping(target, f"calls.append(0)\nif len(calls) == {call}:\n    {kills}")


def wrapping(target: str, before: str) -> str:
    """Python that runs ``before`` at every call of ``module:function``, where it sees ``calls`` and ``arguments``."""
    module, _, path = target.partition(":")
    owner, _, name = f"importlib.import_module({module!r}).{path}".rpartition(".")
    return (
        "import importlib, os\n"
        "def wrap(owner, name):\n"
        "    original, calls = getattr(owner, name), []\n"
        "    def wrapped(*arguments, **options):\n"
        f"{textwrap.indent(before, ' ' * 8)}\n"
        "        return original(*arguments, **options)\n"
        "    setattr(owner, name, wrapped)\n"
        f"wrap({owner}, {name!r})\n"
    )


def import_everything() -> None:
    """What a run and most other commands import, and all that is ours."""
    import pkgutil

    import datasets
    import jinja2
    import peft
    import pyarrow.parquet
    import rich.table
    import sklearn.feature_extraction.text
    import sklearn.linear_model
    import torch
    import transformers
    from transformers import BertForSequenceClassification, get_scheduler
    from transformers.trainer_pt_utils import get_parameter_names

    import featherweight

    for module in pkgutil.walk_packages(featherweight.__path__, "featherweight."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert all([datasets, jinja2, peft, pyarrow, rich, sklearn, transformers, BertForSequenceClassification])
    assert all([get_scheduler, get_parameter_names])
    torch.set_num_threads(1)

    # PyTorch's pool is made anew in a child by the first thread that asks, and a second one at the same time gets none.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))


def serve(library: str, folder: Path) -> None:
    """Import everything, then fork a child for each line of standard input."""
    import_everything()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        (folder / "calls").unlink(missing_ok=True)
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            _child(ctypes.CDLL(library), folder, request)
        code = _wait(child, started, request["signals"])
        answers.write(json.dumps({"code": code, "seconds": time.perf_counter() - started}) + "\n")


def _wait(child: int, started: float, signals: list[Any]) -> int:
    for seconds, number in signals:
        while time.perf_counter() - started < seconds:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(library: Any, folder: Path, request: dict[str, Any]) -> None:
    code = 70
    try:
        output = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(request["cwd"])
        from featherweight import cli

        exec(request["code"], {})
        library.fault_arm(request["below"].encode(), ctypes.c_long(request["at"]), request["action"], request["errno"])
        code = cli.main(request["arguments"])
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    finally:
        library.fault_calls.restype = ctypes.c_long
        calls = library.fault_calls()
        library.fault_arm(b"", ctypes.c_long(-1), 0, 0)
        (folder / "calls").write_text(str(calls))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


FULL, QUOTA, READ_ONLY, FORBIDDEN = errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES
KILL = signal.SIGKILL

if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
