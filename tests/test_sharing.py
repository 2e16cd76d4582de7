"""Runs on a hub: pushed over real HTTP in one commit, or not at all, and answered with from there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny
from hub import LoopbackHub, Repository
from warm import Warm

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ConfigError, ModelError
from featherweight.inference.predictor import load_predictor
from featherweight.serving.catalogue import names_of
from featherweight.sources.pushing import _explained, require_name

pytestmark = pytest.mark.slow  # all of it stands on one run, made once

Models = Callable[[str], Path]
Ended = subprocess.CompletedProcess[str]
TOKEN, READER = "hf_of_me", "hf_of_somebody_else"
TEXTS = ["great film", "dull plot", "a very lovely scene"]
ASKED = [part for text in TEXTS for part in ("--text", text)]
NAME = "me/thing"
QUICK = ["--set", "evidence.baselines=[]", "--set", "training.max_steps=8", "--set", "method.r=4"]
LISTED = [
    "README.md", "adapter_config.json", "adapter_model.safetensors", "featherweight.json", "metrics.json",
    "report.html", "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip


@dataclass
class Place:
    """A hub, a machine that knows it, and a finished run there, of a base model of the hub's."""

    hub: LoopbackHub
    home: Path
    warm: Warm
    environment: dict[str, str]

    def call(self, *arguments: str, token: str | None = TOKEN) -> Ended:
        environment = self.environment | ({"HF_TOKEN": token} if token else {})
        return self.warm.run(arguments, self.home, environment=environment)

    def told(self, *arguments: str) -> Any:
        ended = self.call(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def repository(self, name: str = NAME) -> Repository:
        return self.hub.repositories["models", name]

    def begin(self, *arguments: str) -> threading.Thread:
        thread = threading.Thread(target=self.call, args=arguments)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def place(models: Models, train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("machine")
    with LoopbackHub() as hub:
        hub.add("models", "owner/base", models("bert"))
        hub.writers |= {TOKEN: "me", READER: "somebody"}
        environment = hub.environment(home, FEATHERWEIGHT_CACHE=os.environ["FEATHERWEIGHT_CACHE"])
        made = Place(hub, home, Warm(environment), environment)
        made.told("run", "--model", "owner/base", "--data", str(train_csv), "--output-dir", "run", *QUICK)
        (home / "run" / "adapter" / "notes.csv").write_text("text,label\nprivate,1\n")
        yield made
        made.warm.close()


def assert_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    for mine, theirs in zip(one["predictions"], other["predictions"], strict=True):
        assert mine["label"] == theirs["label"]
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-6)


@pytest.fixture(scope="module")
def answered(place: Place) -> dict[str, Any]:
    return place.told("predict", "run", *ASKED)


@pytest.fixture(scope="module")
def pushed(place: Place) -> dict[str, Any]:
    return place.told("push", "run", NAME)


def test_a_dry_run_lists_what_goes_and_asks_the_hub_nothing(place: Place) -> None:
    before = len(place.hub.requests)
    ended = place.call("push", "run", "me/dry", "--dry-run", token=None)
    assert ended.returncode == 0, ended.stderr
    for name in LISTED:
        assert name in ended.stdout
    assert "quote examples of your data; --no-report" in ended.stderr
    assert "left out: notes.csv" in ended.stderr
    assert len(place.hub.requests) == before
    without = place.told("push", "run", "me/dry", "--dry-run", "--no-report")
    assert sorted(without["files"]) == [one for one in LISTED if one not in ("report.html", "metrics.json")]


def test_a_push_is_one_commit_of_the_listed_files_alone(place: Place, pushed: dict[str, Any]) -> None:
    found = place.repository()
    assert (len(found.messages), found.messages[1][:7]) == (2, "Upload ")
    assert (found.token, pushed["is_public"]) == (TOKEN, False), "private unless asked otherwise"
    there = {path.name: path.read_bytes() for path in found.files()}
    assert sorted(there) == [".gitattributes", *LISTED]
    assert {name: len(there[name]) for name in LISTED} == pushed["files"]
    assert (pushed["commit"], pushed["is_new"]) == (found.commit, True)
    adapter = place.home / "run" / "adapter"
    assert there["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert there["metrics.json"] == (place.home / "run" / "metrics.json").read_bytes()
    machine = [str(place.home), str(place.home.parent), TOKEN]
    assert not [(name, one) for name, content in there.items() for one in machine if one.encode() in content]
    card = there["README.md"].decode()
    assert f'PeftModel.from_pretrained(base, "{NAME}")' in card
    assert f"featherweight predict {NAME} " in there["report.html"].decode()


def test_a_second_push_makes_no_commit(place: Place, pushed: dict[str, Any]) -> None:
    before = len(place.hub.requests)
    ended = place.call("push", "run", NAME, "--public")
    assert ended.returncode == 0, ended.stderr
    assert "no new commit" in ended.stdout
    assert "stays private" in ended.stdout
    assert place.repository().commit == pushed["commit"]
    assert not [one for one in place.hub.requests[before:] if one[0] == "PUT" or "/commit/" in one[1]]


def test_what_is_on_the_hub_answers_as_the_run(place: Place, pushed: dict[str, Any], answered: dict[str, Any]) -> None:
    assert place.call("predict", NAME, *ASKED, token=None).returncode == 4, "it is private"
    assert_alike(place.told("predict", NAME, *ASKED), answered)


def test_a_revision_stays_what_it_was(place: Place, pushed: dict[str, Any], train_csv: Path) -> None:
    """And what a later push does not have is gone from the branch with it."""
    later = place.told("push", "run", NAME, "--no-report")
    assert later["removed"] == ["metrics.json", "report.html"]
    assert [path.name for path in place.repository().files()] == [".gitattributes", *sorted(later["files"])]
    pinned = f"{NAME}@{pushed['commit']}"
    assert place.told("inspect", "adapter", NAME)["revision"] == later["commit"]
    assert place.told("evaluate", pinned, "--data", str(train_csv))["revision"] == pushed["commit"]
    gone = place.call("predict", f"{NAME}@v9", "--text", "x")
    assert (gone.returncode, "revision 'v9'" in gone.stderr) == (4, True), gone.stderr
    going_on = ["--model", "owner/base", "--data", str(train_csv), "--set", f"model.adapter={pinned}"]
    record = place.told("run", *going_on, *QUICK[:4], "--output-dir", "second")
    assert record["started_from"]["revision"] == pushed["commit"]
    assert json.loads((place.home / "second" / "environment.json").read_text())["started_from"]["revision"]


@pytest.mark.parametrize("where", ["upload", "commit", "answer"])
def test_a_connection_that_breaks_off_leaves_all_or_nothing(where: str, place: Place) -> None:
    """Half-way through the weights, which the client sends again; before the commit; and after it, unheard."""
    name = f"me/broken-{where}"
    place.hub.drop = where
    ended = place.call("push", "run", name)
    found = place.repository(name)
    assert place.hub.drop is None
    assert (ended.returncode == 0) == (where == "upload"), ended.stderr
    if where != "upload":
        assert ended.returncode == 4, ended.stderr
        assert "the connection broke off" in ended.stderr.splitlines()[-1]
        assert len(found.messages) == (2 if where == "answer" else 1), "all or nothing"
        assert place.told("push", "run", name)["is_new"] == (where == "commit")
    assert len(found.messages) == 2


def test_a_push_that_is_killed_leaves_nothing_and_goes_through_again(place: Place) -> None:
    place.hub.hold.clear()
    place.hub.uploading.clear()
    thread = place.begin("push", "run", "me/killed")
    try:
        assert place.hub.uploading.wait(60)
        os.kill(place.warm.child(), signal.SIGKILL)
        thread.join()
    finally:
        place.hub.hold.set()
    assert place.repository("me/killed").messages == ["initial commit"]
    assert place.told("push", "run", "me/killed")["is_new"]
    assert len(place.repository("me/killed").messages) == 2


@pytest.mark.parametrize(
    ("name", "token", "code", "named"),
    [
        (NAME, None, 4, "no token of the hub; run `hf auth login`"),
        (NAME, "hf_nobody_knows", 4, "401, Invalid credentials in Authorization header: the hub refuses the token"),
        ("me/new", READER, 4, "403, you don't have the rights to write here: the token may not write there"),
        (NAME, READER, 4, "403"),
        ("thing", TOKEN, 2, "USER/NAME"),
        ("me/a name", TOKEN, 2, "USER/NAME"),
        ("owner/base", TOKEN, 2, "the repository is public"),
        ("owner/base --public", TOKEN, 2, "holds config.json, which `push` did not put there"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    name: str, token: str | None, code: int, named: str, place: Place, pushed: dict[str, Any]
) -> None:
    commits = {one: found.commit for one, found in place.hub.repositories.items()}
    ended = place.call("push", "run", *name.split(" --public")[:1], *["--public"] * ("--public" in name), token=token)
    assert ended.returncode == code, ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert named in line
    assert "hf_nobody" not in ended.stderr
    assert {one: found.commit for one, found in place.hub.repositories.items()} == commits


def test_other_answers_of_the_hub_and_none_at_all() -> None:
    def answered(status: int) -> httpx2.Response:
        return httpx2.Response(status, request=httpx2.Request("POST", "http://hub"))

    from huggingface_hub.errors import HfHubHTTPError

    wrapped = RuntimeError("Error while uploading 'adapter_model.safetensors' to the Hub.")
    wrapped.__cause__ = HfHubHTTPError("503 Server Error\n\nmore", response=answered(503))
    for error, kind, named in (
        (wrapped, ModelError, "503"),
        (HfHubHTTPError("", response=answered(409)), ConfigError, "this name already"),
        (HfHubHTTPError("", response=answered(412)), ModelError, "pushed meanwhile"),
        (httpx2.ConnectError("refused"), ModelError, "can't be reached.*same command"),
    ):
        with pytest.raises(kind, match=named) as found, _explained(NAME):
            raise error
        assert len(str(found.value).splitlines()) == 1
    with pytest.raises(ConfigError):
        require_name("a/b/c")


def test_a_server_takes_an_adapter_of_the_hub(place: Place, pushed: dict[str, Any], answered: dict[str, Any]) -> None:
    assert names_of([f"{NAME}@{pushed['commit']}", "me/other"]) == {
        "thing": f"{NAME}@{pushed['commit']}", "other": "me/other"
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    thread = place.begin("serve", f"{NAME}@{pushed['commit']}", "--port", str(port))
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/predict",
        json.dumps({"texts": TEXTS}).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(300):
        try:
            answer = json.loads(urllib.request.urlopen(asked).read())
            break
        except OSError:
            time.sleep(0.1)
    os.kill(place.warm.child(), signal.SIGTERM)
    thread.join()
    assert_alike(answer, answered)


def test_no_path_of_this_machine_goes_with_a_run_of_local_files(
    models: Models, train_csv: Path, place: Place, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    content = tiny.recipe(models("gpt2"), train_csv, method={"name": "full"}, training={"max_steps": 1})
    workflow.run(recipes.parse({**content, "evidence": {"baselines": []}}), run)
    found = place.told("push", str(run), "me/local")
    assert "model.safetensors" in found["files"]
    for path in place.repository("me/local").files():
        content = path.read_bytes()
        for one in (tmp_path, models("gpt2"), train_csv):
            assert str(one).encode() not in content, path.name
            assert f"../{one.name}".encode() not in content, path.name
    assert_alike(place.told("predict", "me/local", *ASKED), {"predictions": load_predictor(run).predict(TEXTS)})
