"""Several processes of one machine for one command line, by the launcher behind ``torchrun``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from uuid import uuid4

from featherweight.errors import Interrupted


def start(arguments: Sequence[str], processes: int) -> int:
    """Run Featherweight's command line in so many processes. They say themselves what there is to say.

    Returns:
        The exit code: that of the first process that failed, and :class:`Interrupted`'s where one was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        1, 1, processes, run_id=uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "featherweight", *arguments)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else Interrupted.exit_code  # a signal's number, negative
    except SignalException:
        return Interrupted.exit_code
    return 0
