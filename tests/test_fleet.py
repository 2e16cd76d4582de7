"""Several processes that make one run: what they make of it, and how they end together."""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from injector import striking, wrapping
from ranks import Ended, Ranks
from safetensors.numpy import load_file
from torture import outcome

from featherweight import cli
from featherweight.engine.fast.dropout import Masks
from featherweight.engine.training.checkpoints import Checkpoints
from featherweight.engine.training.schedule import dealt
from featherweight.errors import ConfigError
from featherweight.process import launch
from featherweight.runs.directory import RunDirectory
from featherweight.workflow.resuming import command_line

STEP = "featherweight.engine.training.train:Trainer._train_step"
FORWARD = "featherweight.engine.running.packed:Packed.__call__"
# Tiny data would be one batch, and one process would run it.
SMALL = """
from featherweight.engine.running import evaluate, features, generate
own = evaluate.by_tokens
evaluate.by_tokens = features.by_tokens = lambda lengths, *budget: own(lengths, 48)
generate.TOKENS_TOGETHER = 200
"""
SETTINGS: dict[str, Any] = {
    "data.max_length": 16, "data.validation_fraction": 0.25, "method.name": "lora", "method.r": 4,
    "training.num_train_epochs": 1, "training.logging_steps": 1, "training.learning_rate": 1e-3,
    "training.per_device_train_batch_size": 4, "training.save_strategy": "steps", "training.save_steps": 2,
}  # fmt: skip
DROPS = {
    "method.lora_dropout": 0.2, "training.warmup_ratio": 0.5, "training.gradient_accumulation_steps": 2,
    "training.per_device_train_batch_size": 2, "training.num_train_epochs": 2, "evidence.baselines": ["majority"],
}  # fmt: skip


def command(model: Path, data: Path, out: Path, **more: Any) -> list[str]:
    sets = {**SETTINGS, **{key.replace("__", "."): value for key, value in more.items()}}
    given = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
    return ["run", f"--model={model}", f"--data={data}", f"--output-dir={out}", *given]


@pytest.fixture(scope="module")
def ranks(encoder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    folder = tmp_path_factory.mktemp("ranks")
    made = Ranks(folder, [*command(encoder, data, folder / "warm"), "--quiet"])
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_csv(tmp_path_factory.mktemp("data") / "train.csv", tiny.rows(60))


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Completions of unlike length, so that the rows of a step are about unlike numbers of tokens."""
    rows = tiny.rows(60)
    made = [
        {"prompt": row["text"], "completion": " ".join([row["text"], *["a film"] * (place % 5)])}
        for place, row in enumerate(rows)
    ]
    return tiny.save_jsonl(tmp_path_factory.mktemp("dialogues") / "train.jsonl", made)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("llama"), "llama-lm")


@pytest.fixture
def tiny_data(encoder: Path, data: Path) -> tuple[Path, Path]:
    return encoder, data


def whole(ended: list[Ended]) -> None:
    assert [one.code for one in ended] == [0] * len(ended), "".join(one.errors for one in ended)


def steps(out: Path) -> list[dict[str, Any]]:
    return [event for event in RunDirectory(out).read_history() if event["event"] == "step"]


def apart(one: Path, other: Path) -> tuple[float, float]:
    """The greatest difference of a step's loss, and of a weight."""
    losses = [abs(a["loss"] - b["loss"]) for a, b in zip(steps(one), steps(other), strict=True)]
    mine, theirs = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, other))
    assert mine.keys() == theirs.keys()
    return max(losses), max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)


def answered_alike(one: Path, other: Path) -> set[str]:
    """Files of answers that are the same to the byte: whole batches are shared out, so that no answer depends on it."""
    answers = [{path.name: path.read_bytes() for path in (out / "predictions").iterdir()} for out in (one, other)]
    assert answers[0].keys() == answers[1].keys()
    return {name for name, content in answers[0].items() if answers[1][name] == content}


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(ranks: Ranks, encoder: Path, data: Path, tmp_path: Path) -> None:
    """Without dropout: the same batches, losses, weights and answers; and where memory runs out in one of them, both go
    on with less. One folder, and one set of words."""
    one, two, short = (tmp_path / name for name in ("one", "two", "short"))
    whole(ranks.run(command(encoder, data, one, training__per_device_train_batch_size=8), {0: SMALL}, size=1))
    ended = ranks.run(command(encoder, data, two), {0: SMALL, 1: SMALL})
    whole(ended)
    assert max(apart(one, two)) <= 1e-6
    assert {"base-validation.parquet", "linear-probe-validation.parquet"} <= answered_alike(one, two)
    tuned = [RunDirectory(out).read_metrics()["tuned"]["eval_loss"] for out in (one, two)]
    assert tuned[0] == pytest.approx(tuned[1], abs=1e-6)
    assert (ended[1].output, ended[1].errors) == ("", ""), "rank 0 has every word"
    assert "Everything is in" in ended[0].output
    assert RunDirectory(two).read_environment()["processes"] == 2
    lack = "import torch\nif torch.is_grad_enabled() and len(arguments[3]) > 2:\n    raise MemoryError"
    whole(ranks.run(command(encoder, data, short), {1: wrapping(FORWARD, lack)}))
    assert max(apart(two, short)) <= 1e-6
    events = [event for event in RunDirectory(short).read_history() if event["event"] == "out_of_memory"]
    assert [event["micro_batch_rows"] for event in events] == [2]


MEAN_OF_MEANS = """
from dataclasses import replace
from featherweight.engine.fleet import Together
own = Together.add_up
def add_up(self, parameters, said):
    of_all = own(self, [one.detach().clone() for one in parameters], said).items
    share = of_all / (said.items * self.size)
    for one in parameters:
        one.grad *= share
    return own(self, parameters, replace(said, loss=said.loss * share))
Together.add_up = add_up
"""


@pytest.mark.slow
def test_a_step_is_a_mean_over_the_items_of_all(ranks: Ranks, decoder: Path, dialogues: Path, tmp_path: Path) -> None:
    """The rows of one process have more tokens than those of the other. The negative control: the mean of their
    means."""
    one, two, means = (tmp_path / name for name in ("one", "two", "means"))
    given, small = (decoder, dialogues), {0: SMALL, 1: SMALL}
    lm = {"task": "causal-lm", "evaluation.max_new_tokens": 4, "evidence.baselines": ["few-shot"]}
    writes = {**lm, "evaluation.generate": True}
    whole(ranks.run(command(*given, one, training__per_device_train_batch_size=8, **writes), small, size=1))
    whole(ranks.run(command(*given, two, **writes), small))
    assert max(apart(one, two)) <= 1e-6
    same = {"base-written", "few-shot-written", "base", "few-shot", "base-forgetting"}
    assert same <= {name.removesuffix(".parquet").removesuffix("-validation") for name in answered_alike(one, two)}
    whole(ranks.run(command(*given, means, **lm), {0: MEAN_OF_MEANS, 1: MEAN_OF_MEANS}))
    assert min(apart(one, means)) > 1e-5


@pytest.mark.slow
def test_all_hold_pairs_to_the_same_reference(ranks: Ranks, decoder: Path, dialogues: Path, tmp_path: Path) -> None:
    """Which one process computes as two do, and of a run that goes on has from its folder. The negative control: where
    only the first has it."""
    rows = [json.loads(line) for line in dialogues.read_text().splitlines()]
    pairs = tiny.save_jsonl(
        tmp_path / "pairs.jsonl",
        [{"prompt": one["prompt"], "chosen": one["completion"], "rejected": f"bad {one['prompt']}"} for one in rows],
    )
    one, two, on, without = (tmp_path / name for name in ("one", "two", "on", "without"))
    small, told = {0: SMALL, 1: SMALL}, {"task": "preference", "evidence.baselines": ["longer-answer"]}
    whole(ranks.run(command(decoder, pairs, one, training__per_device_train_batch_size=8, **told), small, size=1))
    whole(ranks.run(command(decoder, pairs, two, **told), small))
    assert max(apart(one, two)) <= 1e-6
    assert {"base-validation.parquet", "longer-answer-validation.parquet"} <= answered_alike(one, two)
    ended = ranks.run(command(decoder, pairs, on, **told), {0: SMALL, 1: SMALL + striking(STEP, 4, signal.SIGTERM)})
    assert [one.code for one in ended] == [75, 75]
    whole(ranks.run([*command(decoder, pairs, on, **told), "--resume"], small))
    assert outcome(on) == outcome(two)
    alone = "from featherweight.workflow import together\ntogether._WORK['hold'] = lambda *found, **given: None\n"
    whole(ranks.run(command(decoder, pairs, without, **told), {0: SMALL, 1: SMALL + alone}))
    assert min(apart(one, without)) > 1e-5


# What `accelerate launch --use_fsdp --cpu` says; transformers would then read weights in one process alone.
ACCELERATES = """
import os
told = dict(ACCELERATE_USE_FSDP="true", FSDP_CPU_RAM_EFFICIENT_LOADING="true", ACCELERATE_USE_CPU="true")
os.environ.update(told)
"""
# In the third step, as it begins; what is computed within a layer is not under the eyes of autograd.
DIES_AT_AN_EMBEDDING = """
import os, signal, torch
if torch.is_grad_enabled() and arguments[1] >= 0:
    calls.append(0)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""
# A tiny model's weights would all be put together at once.
FEW = "from featherweight.engine import shards\nshards._TOGETHER = 4096\n"
# A process that sends nothing of its own.
EMPTY = """
whole_close = shards.Shards._close
def close(self):
    whole_close(self)
    for part in self._parts:
        part.zero_()
shards.Shards._close = close
"""


@pytest.mark.slow
def test_a_base_that_processes_share_out_is_the_same_base(
    ranks: Ranks, encoder: Path, data: Path, tmp_path: Path
) -> None:
    """To the byte, asked for by the recipe or by a launcher; where memory runs out in one process while the other is
    within the model; and where one is killed there and the run goes on. The negative control: what is made without the
    parts of one is not what a user would load."""
    whole_base, parts, on, without = (tmp_path / name for name in ("whole", "parts", "on", "without"))
    few = SMALL + FEW
    small, asked = {0: few, 1: few}, {"model__dtype": "bfloat16"}
    lack = "import torch\nif torch.is_grad_enabled() and len(arguments[3]) > 2:\n    raise MemoryError"
    short = {0: few, 1: few + wrapping(FORWARD, lack)}
    whole(ranks.run(command(encoder, data, whole_base, **asked), short))
    ended = ranks.run(command(encoder, data, parts, **asked), {at: code + ACCELERATES for at, code in short.items()})
    whole(ended)
    assert "2 processes share out its 20,480 frozen weights, 0.0 MB each" in ended[0].errors
    assert apart(whole_base, parts) == (0, 0)
    assert answered_alike(whole_base, parts) == {path.name for path in (parts / "predictions").iterdir()}
    asked["training__fsdp"] = True
    dying = wrapping("featherweight.engine.shards:Shards._exchange", DIES_AT_AN_EMBEDDING)
    ended = ranks.run(command(encoder, data, on, **asked), {0: few, 1: few + dying})
    assert [one.code for one in ended] == [75, -signal.SIGKILL]
    assert "another process" in ended_with_one_line(ended)
    whole(ranks.run([*command(encoder, data, on, **asked), "--resume"], small))
    assert max(apart(on, parts)) <= 1e-6
    ended = ranks.run(command(encoder, data, without, **asked), {0: few, 1: few + EMPTY})
    assert [one.code for one in ended] == [5, 5]
    assert "answers differently from the tuned model in memory" in ended[0].errors


@pytest.mark.slow
def test_all_round_or_none_does(ranks: Ranks, encoder: Path, tmp_path: Path) -> None:
    """Where the recipe leaves it to the machine, which rank 0 asks."""
    gains = "import featherweight.engine.hardware as hardware, featherweight.engine.fast.machine_speed as speed\n"
    gains += "hardware.has_bf16 = lambda: True\nspeed.Probe.gains_by_bf16 = True\n"
    fp32 = "from featherweight.engine.running.execution import Execution\nExecution.multiply_in = lambda self, _: setattr(self, 'precision', 'fp32')\n"
    rows = tiny.save_csv(tmp_path / "rows.csv", tiny.rows(1000))
    asked = {"training__bf16": "auto", "training__max_steps": 4}
    alone, both, half = (tmp_path / name for name in ("alone", "both", "half"))
    whole(
        ranks.run(command(encoder, rows, alone, **asked, training__per_device_train_batch_size=8), {0: gains}, size=1)
    )
    whole(ranks.run(command(encoder, rows, both, **asked), {0: gains}))
    assert "bf16 = true # chosen automatically" in (both / "recipe.toml").read_text()
    assert max(apart(alone, both)) <= 1e-6
    whole(ranks.run(command(encoder, rows, half, **asked), {0: gains, 1: fp32}))
    assert max(apart(alone, half)) > 1e-6, "negative control"


@pytest.mark.slow
def test_a_vocabulary_is_shared_out_too(ranks: Ranks, decoder: Path, dialogues: Path, tmp_path: Path) -> None:
    """Answers of unlike length, which are written in batches of which one process has more."""
    written, parts = (tmp_path / name for name in ("whole", "parts"))
    lm = {"task": "causal-lm", "evaluation.max_new_tokens": 4, "evaluation.generate": True}
    for out, fsdp in ((written, False), (parts, True)):
        asked = command(decoder, dialogues, out, training__fsdp=fsdp, **lm)
        whole(ranks.run(asked, {0: SMALL + FEW, 1: SMALL + FEW}))
    assert max(apart(written, parts)) <= 1e-6
    texts = {name for name in answered_alike(written, parts) if "written" in name}
    assert {"base-written-validation.parquet", "tuned-written-validation.parquet"} <= texts


@pytest.fixture(scope="module")
def asked(models: Callable[[str], Path], data: Path) -> Callable[[Path], list[str]]:
    """A run with dropout, warm-up and accumulation."""
    return lambda out: command(models("gpt2"), data, out, **DROPS)


@pytest.fixture(scope="module")
def expected(ranks: Ranks, asked: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What it leaves where nobody disturbs it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    whole(ranks.run(asked(out)))
    return outcome(out)


def ended_with_one_line(ended: list[Ended]) -> str:
    """Soon after one another, and one of them has said why."""
    assert max(one.seconds for one in ended) < 5
    assert "Traceback" not in "".join(one.errors for one in ended)
    (line,) = [line for one in ended for line in one.errors.splitlines() if line.startswith("featherweight:")]
    return line


def test_one_that_is_asked_to_stop_stops_all(
    ranks: Ranks, asked: Callable[[Path], list[str]], expected: Any, tmp_path: Path
) -> None:
    """At the same step, with a checkpoint from which the command that is named goes on to the same bytes."""
    ended = ranks.run(asked(tmp_path / "run"), {1: striking(STEP, 5, signal.SIGTERM)})
    assert [one.code for one in ended] == [75, 75]
    line = ended_with_one_line(ended)
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).steps()[-1] == 5
    whole(ranks.run(shlex.split(line.partition("continue with: torchrun --nproc-per-node=2 -m featherweight ")[2])))
    assert outcome(tmp_path / "run") == expected


# Masks that depend on the states of each process's generators, and on its rank through them alone.
DRAWN = wrapping(
    "featherweight.engine.fast.dropout:Masks.start",
    "import torch\narguments = (arguments[0], int(torch.randint(999, ())))",
)
FORGET = "from featherweight.engine.training import randomness\nrandomness.restore = lambda states: None\n"


@pytest.mark.slow
def test_one_that_is_killed_ends_all(ranks: Ranks, asked: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """Exit 75, and the run goes on to the same bytes. The negative control: where the second process does not go on
    drawing where it was."""
    draws = {0: DRAWN, 1: DRAWN}
    whole(ranks.run(asked(tmp_path / "whole"), draws))
    ended = ranks.run(asked(tmp_path / "run"), draws | {0: DRAWN + striking(STEP, 5, signal.SIGKILL)})
    assert [one.code for one in ended] == [-signal.SIGKILL, 75]
    assert "another process" in ended_with_one_line(ended)
    shutil.copytree(tmp_path / "run", tmp_path / "forgetful")
    whole(ranks.run([*asked(tmp_path / "run"), "--resume"], draws))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    whole(ranks.run([*asked(tmp_path / "forgetful"), "--resume"], draws | {1: DRAWN + FORGET}))
    assert outcome(tmp_path / "forgetful") != outcome(tmp_path / "whole")


OTHER_SEED = """
from featherweight.workflow.preparing import Prepared
own = Prepared.identity
Prepared.identity = lambda self: own(self) | {"training.seed": 7}
"""
LACK = wrapping("featherweight.engine.running.passes:Pass.add", "raise MemoryError")


@pytest.mark.parametrize(
    ("rank", "code", "exit_code", "line", "before"),
    [
        (1, OTHER_SEED, 2, "training.seed is", "reading the data"),
        (1, LACK, 6, "out of memory", "the baseline linear-probe failed and is left out: MemoryError"),
        (0, wrapping("featherweight.evidence.data.checks:check", "raise OSError('gone')"), 70, "OSError: gone", ""),
    ],
    ids=["other settings", "no memory in a pass", "while the other waits"],
)
def test_what_is_wrong_in_one_is_said_once(
    rank: int, code: str, exit_code: int, line: str, before: str, ranks: Ranks, tiny_data: Any, tmp_path: Path
) -> None:
    """And what rank 0 judges in a run that is alone, as a baseline that fails, it judges here."""
    ended = ranks.run(command(*tiny_data, tmp_path / "run"), {0: SMALL, 1: SMALL} | {rank: SMALL + code})
    assert [one.code for one in ended] == [exit_code, exit_code], ended
    assert line in ended_with_one_line(ended)
    assert before in ended[0].errors


def test_what_several_processes_are_not_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Other commands, and a run that another number of processes has begun."""
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.write_json(directory.environment, {"processes": 4})
    run = ["run", "--model=m", "--data=d", f"--output-dir={directory.path}", "--resume"]
    assert cli.main(run) == 2
    assert "start 4 again (now 1)" in capsys.readouterr().err
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for refused in (["predict", "somewhere", "--text=a"], ["run", "--model=m", "--data=d", "--seeds=2"]):
        assert cli.main(refused) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "one process" in line
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main(refused) == 2
    assert capsys.readouterr().err == "", "the first on each machine says it"


class TestOneOfSeveral:
    def test_threads_are_divided_unless_the_user_says_how_many(self) -> None:
        told = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        each = max(launch.processors() // 2, 1)
        assert launch.place(told) == launch.Place(rank=3, size=4, local_rank=1, local_size=2)
        assert launch.threads(told) == each
        assert launch.threads(told | {"OMP_NUM_THREADS": "3"}) is None
        assert launch.threads({}) is None
        environments = {"user": {"OMP_NUM_THREADS": "1"}, "launcher": {}}
        shell = "from featherweight.process import launch; print(launch.threads())"
        for said_by, began in environments.items():  # as torchrun does, in a process that was started with or without
            inner = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {shell!r}], env={{**os.environ, **{told | {'OMP_NUM_THREADS': '1'}!r}}})"
            environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | began
            found = subprocess.run([sys.executable, "-c", inner], env=environment, capture_output=True, text=True)
            assert found.stdout.strip() == ("None" if said_by == "user" else str(each)), found.stderr

    def test_one_where_several_were_asked_for_is_refused(self) -> None:
        one = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        with pytest.raises(ConfigError, match="--multi_gpu"):
            launch.require_whole(one)
        launch.require_whole(one | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"})
        launch.require_whole({"ACCELERATE_MIXED_PRECISION": "no"})

    def test_a_launcher_can_ask_for_a_base_that_is_shared_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which another, that goes on with the run, has to be told."""
        assert not any(map(launch.shards, ({}, {"ACCELERATE_USE_FSDP": "false"})))
        assert "fsdp" not in command_line(["run", "r.toml"], False)
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        assert launch.shards()
        with launch.unsaid_shards():
            assert not launch.shards()
        assert launch.shards()
        once = command_line(["run", "r.toml"], False)
        assert once == "featherweight run r.toml --set=training.fsdp=true --resume"
        assert command_line(shlex.split(once)[1:], True) == once

    def test_each_draws_its_own_masks(self) -> None:
        places = []
        for rank in ((), (0,), (1,)):
            masks = Masks(3)
            masks.start(7, *rank)
            places.append(masks.place)
        assert places[0] == places[1] != places[2], "rank 0 draws as one that is alone"

    def test_rows_are_dealt_out_to_all_and_evenly(self) -> None:
        lengths = np.random.default_rng(0).integers(1, 200, 500)
        for size, count in itertools.product((1, 2, 3, 8), (1, 2, 7, 64)):
            rows = np.random.default_rng(count).permutation(500)[:count]
            shares = [dealt(rows, lengths, rank, size) for rank in range(size)]
            assert sorted(np.concatenate(shares)) == sorted(rows)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            assert len(shares[0])
            if count == 64:
                tokens = [int(lengths[share].sum()) for share in shares]
                assert max(tokens) <= 1.1 * min(tokens)
        assert dealt(rows, lengths, 0, 1).tolist() == rows.tolist()


@pytest.mark.slow
def test_launchers(asked: Callable[[Path], list[str]], expected: Any, tmp_path: Path) -> None:
    """Our own, which is torchrun's, with a process killed at random; torchrun goes on to the same bytes."""
    out = tmp_path / "run"
    own = [sys.executable, "-m", "featherweight", *asked(out), "--num-processes", "2"]
    at, victim = random.Random().randint(1, 9), random.Random().randrange(2)
    with subprocess.Popen(own, stderr=subprocess.PIPE, text=True) as started:
        while started.poll() is None and (not RunDirectory(out).history.exists() or len(steps(out)) < at):
            time.sleep(0.01)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        (killed,) = [one for one in children if f"\0RANK={victim}\0" in Path(f"/proc/{one}/environ").read_text()]
        os.kill(int(killed), signal.SIGKILL)
        _, said = started.communicate(timeout=60)
    assert started.returncode == 75, said
    assert "--num-processes 2 --resume" in said
    torchrun = [Path(sys.executable).with_name("torchrun"), "--nproc-per-node=2", "-m", "featherweight"]
    resumed = subprocess.run([*torchrun, *asked(out), "--resume"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(out) == expected, (at, victim)
