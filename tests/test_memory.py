"""Memory does not grow with the number of rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from transformers import BertConfig, BertForSequenceClassification
from featherweight.engine import Watch
from featherweight.engine.running.evaluate import evaluate
from featherweight.engine.running.execution import Execution
from featherweight.records.rows import Encoding, Ragged
from featherweight.tasks.sequence_classification import SequenceClassification

torch.set_num_threads(1)
rows, folder = int(sys.argv[1]), Path(sys.argv[2])
lengths = np.random.default_rng(0).integers(2, 6, rows, dtype=np.int64)
offsets = np.concatenate([[0], np.cumsum(lengths)])
tokens = np.memmap(folder / "tokens", dtype=np.int32, mode="w+", shape=(int(offsets[-1]),))
tokens[:] = 7
encoding = Encoding.unlabelled(Ragged(tokens, offsets))
config = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
)
model = BertForSequenceClassification(config).eval()
task = SequenceClassification(("no", "yes"))
execution = Execution(model, 0)
found = evaluate(
    model, task, encoding, execution=execution, batch_size=32, watch=Watch("", lambda event: None)
)
assert len(found.answers) == rows
anonymous = [line for line in open("/proc/self/status") if line.startswith("RssAnon")][0]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, int(anonymous.split()[1]))
"""


@pytest.mark.slow
def test_evaluating_a_million_rows_takes_the_memory_of_ten_thousand(tmp_path: Path) -> None:
    """Within 10 %: tokens stay on disk, and what is kept of a row is its probabilities and its place."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs Linux's account of a process's memory")
    peaks = {}
    for rows in (10_000, 1_000_000):
        ended = subprocess.run(
            [sys.executable, "-c", CHILD, str(rows), str(tmp_path)], capture_output=True, text=True, timeout=600
        )
        assert ended.returncode == 0, ended.stderr
        peaks[rows] = int(ended.stdout.split()[0])
    assert peaks[1_000_000] < 1.1 * peaks[10_000], peaks
