"""Row 68: requests made up from the OpenAPI document, good and bad; none may end in a 5xx, all as documented.

A few hundred in CI; 10,000 with ``FEATHERWEIGHT_TORTURE`` (``make torture-server``). Row 62's minute is here too.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serving
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from featherweight import recipe as recipes
from featherweight import workflow

TORTURE = bool(os.environ.get("FEATHERWEIGHT_TORTURE"))
OPERATIONS = 9
CASES = 10_000 if TORTURE else 300


@pytest.fixture(scope="module")
def folder(models: Callable[[str], Path], train_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("one", "two"):
        content = tiny.recipe(models("bert"), train_csv, training={"max_steps": 2})
        workflow.run(recipes.parse(content), folder / name)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[serving.Server]:
    with serving.running(folder / "one", "--allow-dynamic-adapters", folder, key=serving.KEY) as started:
        yield started


@pytest.mark.slow
def test_row_68_no_generated_request_ends_in_a_5xx(server: serving.Server) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis
        from schemathesis.checks import CHECKS

        key = {"Authorization": f"Bearer {serving.KEY}"}
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=key)
        wanted = [
            CHECKS.get_one(name)
            for name in ("not_a_server_error", "status_code_conformance", "response_schema_conformance")
        ]
        operations = [one.ok() for one in schema.get_all_operations()]
        assert len(operations) == OPERATIONS
        tried = 0
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(
                max_examples=-(-CASES // OPERATIONS), database=None, deadline=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            def ask(case: Any) -> None:
                nonlocal tried
                tried += 1
                answer = case.call(headers=key)
                case.validate_response(answer, checks=wanted)

            ask()
    assert tried >= 50
    assert server.process.poll() is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["texts", "model"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
def test_row_68_no_body_ends_in_a_5xx(server: serving.Server) -> None:
    """What no schema would come up with: any bytes, any JSON, texts of any characters."""
    import json

    texts = st.fixed_dictionaries(
        {"texts": st.lists(st.text(), max_size=6)}, optional={"model": st.sampled_from(["one", "two", "one@base", ""])}
    )
    seen = set()

    @given(body=st.binary(max_size=200) | (JSON | texts).map(lambda content: json.dumps(content).encode()))
    @settings(
        max_examples=CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(body: bytes) -> None:
        got = server.ask("POST", "/v1/predict", body, key=serving.KEY)
        seen.add(got.status)
        assert got.status in {200, 400, 404, 422}, (got.status, body)

    ask()
    assert {200, 422} <= seen
    assert server.process.poll() is None


@pytest.mark.slow
@pytest.mark.skipif(not TORTURE, reason="a minute of overload; make torture-server")
def test_row_62_a_minute_of_overload_leaves_nothing_behind(folder: Path) -> None:
    """Sixty-four clients that never wait; memory is that of the first seconds, and afterwards it answers within 5 s."""
    texts = ["the great film and this very plot"] * 64
    with serving.running(folder / "one", "--max-waiting-tokens", "2000", "--token-budget", "64") as server:
        stop = time.monotonic() + 60
        seen: list[int] = []

        def ask() -> None:
            while time.monotonic() < stop:
                seen.append(server.predict(texts).status)

        clients = [threading.Thread(target=ask) for _ in range(64)]
        for client in clients:
            client.start()
        time.sleep(10)
        early = server.memory()
        for client in clients:
            client.join()
        assert set(seen) == {200, 429}
        assert seen.count(429) > seen.count(200)
        assert server.memory() - early < 16_000_000
        began = time.monotonic()
        while server.predict(["great"]).status != 200:
            assert time.monotonic() - began < 5
