"""The server against abuse: real processes, real sockets. Rows 59 to 68 of the faults."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import serving
import tiny

from featherweight import recipe as recipes
from featherweight import workflow
from featherweight.errors import ModelError
from featherweight.serving.catalogue import Catalogue, is_name, names_of

SECRET = "my-diagnosis-is-private"
ROUTES = [
    "/", "/v1/models", "/v1/predict", "/v1/chat/completions", "/v1/completions", "/metrics", "/openapi.json",
    "/health", "/ready", "/v1/adapters",
]  # fmt: skip


@pytest.fixture(scope="module")
def adapters(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on one base, ``one`` and ``two``."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two")):
        train = tiny.save_csv(folder / f"{name}.csv", tiny.rows(80, seed=seed))
        content = tiny.recipe(models("bert"), train, training={"max_steps": 3, "seed": seed})
        workflow.run(recipes.parse(content), folder / name)
        train.unlink()
    return folder


@pytest.fixture(scope="module")
def server(adapters: Path) -> Iterator[serving.Server]:
    limits = ["--max-texts", "8", "--max-text-characters", "2000", "--max-body-bytes", "20000", "--head-timeout", "1"]
    with serving.running(adapters / "one", *limits, "--timeout", "5") as started:
        yield started


@pytest.fixture(scope="module")
def locked(adapters: Path) -> Iterator[serving.Server]:
    with serving.running(
        adapters / "one", adapters / "two", "--allow-dynamic-adapters", adapters, key=serving.KEY
    ) as started:
        yield started


def answers(server: serving.Server) -> bool:
    return server.predict(["great"], "one").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b"[]", b"null", b'"texts"', b'{"texts": null}', b'{"texts": "one"}', b'{"texts": [1]}',
        b'{"texts": [null]}', b'{"texts": []}', b'{"texts": [["a"]]}', b'{"texts": ["a"], "model": 1}',
        b'{"texts": ["a"], "more": 1}', b'{"texts": [NaN]}', b'{"texts": ["a"], "model": Infinity}',
        b'{"texts": ["a"], "texts": ["b"]}', b'{"texts": ' + b"[" * 9000, b'{"a":' * 3000, b"[" * 9000 + b"]" * 9000,
        b'{"texts": [' + b"9" * 8000 + b"]}", b'{"texts": ["\\ud800"]}', b'{"texts": ["\xff\xfe"]}',
        b'{"texts": ["a"], "\\ud800": 1}', b'\xef\xbb\xbf{"texts": ["a"]}', b'{"texts": ["a"]} trailing',
        b'{"texts": ["a\nb"]}', b'{"texts": [1e999]}',
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_row_59_bad_json_is_refused_and_the_process_lives(body: bytes, server: serving.Server) -> None:
    got = server.ask("POST", "/v1/predict", body)
    assert got.status in {400, 422}
    assert isinstance(got.json["detail"], str)
    assert got.json["detail"]
    assert answers(server)


def test_row_59_odd_texts_are_texts(server: serving.Server) -> None:
    odd = ["", " ", "\0", "\u202e", "👩‍👩‍👧", "e\u0301", "[CLS] [SEP] [PAD]", '{"[": "\\"']
    assert len(server.predict(odd).json["predictions"]) == len(odd)


def raw(server: serving.Server, sent: bytes) -> bytes:
    """What comes back for these very bytes, until the server closes."""
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent)
        return read_all(connection)
    return b""


def read_all(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_row_60_a_large_body_is_refused_before_it_is_read(server: serving.Server) -> None:
    """Nothing of the announced body is ever sent, so an answer proves that nobody waited for it."""
    got = raw(server, HEAD + b"Content-Length: 20001\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in got.lower()
    huge = raw(server, HEAD + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n")
    assert huge.startswith(b"HTTP/1.1 413 ")
    assert answers(server)


def test_row_60_a_chunked_body_without_length_is_cut_off(server: serving.Server) -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    before = server.memory()
    got = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 6)
    assert got.startswith(b"HTTP/1.1 413 ")
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):  # 40 MB, of which the server may keep 20 kB
            connection.sendall(chunk)
    assert server.memory() - before < 20_000_000
    assert answers(server)


def test_row_60_a_slow_head_or_body_ends(server: serving.Server) -> None:
    with server.connect() as silent, server.connect() as dripping, server.connect() as bodyless:
        bodyless.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        with contextlib.suppress(ConnectionError):
            for letter in b"GET /health HTTP/1.1\r\nX: " + b"y" * 200:
                dripping.sendall(bytes([letter]))
                time.sleep(0.02)
        assert read_all(dripping) == b""
        assert read_all(silent) == b""
        assert read_all(bodyless).startswith(b"HTTP/1.1 408 ")
    assert answers(server)


def test_row_60_a_slow_second_head_on_a_kept_connection_ends(server: serving.Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):  # head and body may come in two pieces
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /hea")
        assert read_all(connection) == b""


@pytest.mark.slow
def test_row_60_ten_thousand_idle_connections(adapters: Path) -> None:
    """As many at once as this process may open; those idle for longest give way, and work goes on."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    try:
        with serving.running(adapters / "one", "--max-connections", "500", "--head-timeout", "60") as server:
            before = server.memory()
            with contextlib.ExitStack() as stack:
                for _ in range(min(10_000, min(hard, 65536) - 200)):
                    stack.enter_context(server.connect())
                assert answers(server)
                assert server.memory() - before < 100_000_000
                assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 700
            assert answers(server)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_row_61_too_many_texts_and_too_long_ones(server: serving.Server) -> None:
    assert server.predict(["a"] * 8).status == 200
    assert "9 are more than 8" in server.predict(["a"] * 9).json["detail"]
    assert server.predict(["a"] * 9).status == 422
    assert server.predict(["a" * 2001]).status == 422
    short, exact, long = server.predict(["great film", "the " * 14, "the " * 15]).json["predictions"]
    assert "truncated" not in short
    assert "truncated" not in exact, "14 words and 2 special tokens are the model's 16"
    assert long["truncated"] is True


def test_row_62_overload_is_refused_at_once_and_passes(adapters: Path) -> None:
    """A queue of a few tokens and thirty clients: some are answered, the others told when to come back."""
    text = "the great film and this very plot"
    with serving.running(adapters / "one", "--max-waiting-tokens", "60", "--token-budget", "16") as server:
        expected = server.predict([text] * 4).json
        with ThreadPoolExecutor(30) as clients:
            got = [one.result() for one in [clients.submit(server.predict, [text] * 4) for _ in range(300)]]
        statuses = {one.status for one in got}
        assert statuses == {200, 429}, statuses
        for one in got:
            if one.status == 429:
                assert 1 <= int(one.headers["retry-after"]) <= 60
            else:
                assert [p["label"] for p in one.json["predictions"]] == [p["label"] for p in expected["predictions"]]
        assert server.predict([text]).status == 200
        assert b'status="429"' in server.ask("GET", "/metrics").body
        assert b"featherweight_waiting_tokens 0.0" in server.ask("GET", "/metrics").body


def test_row_63_without_the_key_every_route_is_closed(locked: serving.Server) -> None:
    paths = json.loads(locked.ask("GET", "/openapi.json", key=serving.KEY).body)["paths"]
    assert set(paths) <= {*ROUTES, "/v1/adapters/{name}"}
    tried = 0
    for path in [*ROUTES, *paths, "/docs", "/redoc", "/nowhere", "/static/x"]:
        for spelled in {
            path,
            path + "/",
            "/" + path,
            path.upper(),
            path + "?x=1",
            path + "%2f",
            path.replace("/", "/./"),
            f"/x/..{path}",
        }:
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                got = locked.ask(method, spelled)
                if spelled.partition("?")[0] in {"/health", "/ready"}:
                    assert got.status in {200, 405}, (method, spelled)
                    continue
                tried += 1
                assert got.status == 401, (method, spelled)
                assert got.headers["www-authenticate"] == "Bearer"
    assert tried > 500


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", f"Bearer {serving.KEY}x", f"Bearer {serving.KEY[:-1]}", f"Basic {serving.KEY}", serving.KEY,
        f"Bearer {serving.KEY.upper()}", f"Bearer {serving.KEY} {serving.KEY}", "Bearer \xe9", f"bearer\t{serving.KEY}",
    ],
)  # fmt: skip
def test_row_63_what_is_not_the_key_is_refused(header: str, locked: serving.Server) -> None:
    assert locked.ask("GET", "/v1/models", headers={"Authorization": header}).status == 401
    assert locked.ask("GET", f"/v1/models?key={serving.KEY}").status == 401
    assert locked.ask("GET", "/v1/models", key=serving.KEY).status == 200


def test_row_63_two_authorization_headers_are_refused(locked: serving.Server) -> None:
    line = f"Authorization: Bearer {serving.KEY}\r\n".encode()
    head = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert raw(locked, head + line + b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert raw(locked, head + line + line + b"\r\n").startswith(b"HTTP/1.1 401 ")


def test_row_63_a_large_body_without_the_key_is_401(locked: serving.Server) -> None:
    assert raw(locked, HEAD + b"Connection: close\r\nContent-Length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_row_63_other_addresses_need_a_key(host: str, adapters: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FEATHERWEIGHT_API_KEY"}
    ended = cli("serve", adapters / "one", "--host", host, "--port", "0", env=environment)
    assert ended.returncode == 2
    assert "needs a key" in ended.stderr
    (tmp_path / "key").write_text("short")
    ended = cli("serve", adapters / "one", "--host", host, "--api-key-file", tmp_path / "key", env=environment)
    assert ended.returncode == 2
    assert "16 characters" in ended.stderr
    assert "short\n" not in ended.stderr
    assert cli("serve", adapters / "one", env=environment | {"FEATHERWEIGHT_API_KEY": ""}).returncode == 2


def test_row_63_a_key_from_a_file_with_an_end_of_line(adapters: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{serving.KEY}\n")
    with serving.running(adapters / "one", "--host", "0.0.0.0", "--api-key-file", tmp_path / "key") as server:
        assert server.ask("GET", "/v1/models").status == 401
        assert server.ask("GET", "/v1/models", key=serving.KEY).status == 200


def test_without_a_key_only_local_names_are_answered(server: serving.Server) -> None:
    """DNS rebinding: a page on the web whose name resolves to this machine."""
    assert server.ask("GET", "/v1/models", headers={"Host": "evil.example"}).status == 421
    assert server.ask("GET", "/v1/models", headers={"Host": f"localhost:{server.port}"}).status == 200
    plain = server.ask("POST", "/v1/predict", b'{"texts": ["a"]}', headers={"Content-Type": "text/plain"})
    assert plain.status == 422, "a form of another site can't send JSON without asking first"


def test_row_64_loading_is_off_by_default(server: serving.Server) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        for path in ("/v1/adapters", "/v1/adapters/one"):
            assert server.ask(method, path, {"name": "two"}).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "../../etc", "/abs", "a/b", "..", ".", "", "x" * 300, "a\0b", "CON", "nul.txt", "\u043ene", "%2e%2e", ".hidden",
        "one/", "one\n", " one", "one ", "..\\one", "one@base",
    ],
)  # fmt: skip
def test_row_56_names_that_are_no_names(name: str, locked: serving.Server) -> None:
    assert not is_name(name)
    assert locked.ask("POST", "/v1/adapters", {"name": name}, key=serving.KEY).status == 400


def test_row_56_links_and_siblings_lead_nowhere(adapters: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "adapters"
    allowed.mkdir()
    shutil.copytree(adapters / "two", tmp_path / "adapters_evil" / "two")
    (allowed / "out").symlink_to(tmp_path / "adapters_evil" / "two")
    (allowed / "file").write_text("")
    with serving.running(adapters / "one", "--allow-dynamic-adapters", allowed) as server:
        for name in ("out", "file", "two", "nowhere"):
            assert server.ask("POST", "/v1/adapters", {"name": name}).status == 404


def test_row_56_runs_must_have_names(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="can't be a model's name"):
        names_of([str(tmp_path / "mit Leerzeichen")])
    with pytest.raises(Exception, match="too; rename"):
        names_of([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")])


def test_row_64_bad_adapters_are_refused_and_the_others_served(adapters: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "adapters"
    for name in ("broken", "headless", "pickle", "good"):
        shutil.copytree(adapters / "two" / "adapter", allowed / name)
    (allowed / "empty").mkdir()
    (allowed / "broken" / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    (allowed / "headless" / "adapter_config.json").write_text("{}")
    (allowed / "pickle" / "adapter_model.safetensors").rename(allowed / "pickle" / "adapter_model.bin")
    with serving.running(adapters / "one", "--allow-dynamic-adapters", allowed) as server:
        for name in ("broken", "headless", "pickle", "empty"):
            got = server.ask("POST", "/v1/adapters", {"name": name})
            assert 400 <= got.status < 500, (name, got.body)
            assert str(tmp_path) not in got.json["detail"]
            assert server.predict(["great"], name).status == 404
            assert answers(server)
        assert server.ask("POST", "/v1/adapters", {"name": "good"}).status == 201
        assert server.predict(["great"], "good").status == 200


@pytest.mark.parametrize("base", [None, 7, [], {"fingerprint": 7}, {"name": None, "fingerprint": ["x"]}])
def test_row_84_facts_that_are_none_are_refused_and_the_others_served(
    base: Any, adapters: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(adapters / "two" / "adapter", tmp_path / "strange")
    facts = json.loads((folder / "featherweight.json").read_text()) | {"base_model": base}
    (folder / "featherweight.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=r"featherweight.json: base_model"):
        Catalogue().load("strange", str(folder))


def test_row_84_a_null_base_is_no_500(adapters: Path, locked: serving.Server) -> None:
    folder = shutil.copytree(adapters / "two" / "adapter", adapters / "null-base")
    try:
        facts = json.loads((folder / "featherweight.json").read_text()) | {"base_model": None}
        (folder / "featherweight.json").write_text(json.dumps(facts))
        got = locked.ask("POST", "/v1/adapters", {"name": "null-base"}, key=serving.KEY)
        assert got.status == 422
        assert "featherweight.json: base_model" in got.json["detail"]
    finally:
        shutil.rmtree(folder)


def test_row_64_the_same_name_at_once_loads_once(locked: serving.Server) -> None:
    assert locked.ask("DELETE", "/v1/adapters/two", key=serving.KEY).status == 200
    assert locked.predict(["great"], "two", key=serving.KEY).status == 404
    with ThreadPoolExecutor(8) as clients:
        tried = [
            clients.submit(locked.ask, "POST", "/v1/adapters", {"name": "two"}, None, serving.KEY) for _ in range(8)
        ]
        assert sorted(one.result().status for one in tried) == [201, *[409] * 7]
    assert locked.predict(["great"], "two", key=serving.KEY).status == 200


def test_row_64_unloading_while_requests_are_under_way(locked: serving.Server) -> None:
    """Every answer is the adapter's own or 404; nothing else ever, and the other adapter never notices."""
    texts = ["the great film"] * 16
    expected = {name: locked.predict(texts, name, key=serving.KEY).json["predictions"][0] for name in ("one", "two")}
    stop = threading.Event()
    seen: dict[str, list[serving.Answer]] = {"one": [], "two": []}

    def ask(name: str) -> None:
        while not stop.is_set():
            seen[name].append(locked.predict(texts, name, key=serving.KEY))

    clients = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two", "two")]
    for client in clients:
        client.start()
    for _ in range(10):
        assert locked.ask("DELETE", "/v1/adapters/two", key=serving.KEY).status == 200
        assert locked.ask("POST", "/v1/adapters", {"name": "two"}, key=serving.KEY).status == 201
    stop.set()
    for client in clients:
        client.join()
    assert {one.status for one in seen["one"]} == {200}
    assert {one.status for one in seen["two"]} <= {200, 404}
    for name, got in seen.items():
        for one in got:
            if one.status == 200:
                for prediction in one.json["predictions"]:
                    for label, value in expected[name]["probabilities"].items():
                        assert abs(prediction["probabilities"][label] - value) < 1e-5


def cycles(server: serving.Server, count: int) -> int:
    for _ in range(count):
        assert server.ask("DELETE", "/v1/adapters/two", key=serving.KEY).status == 200
        assert server.ask("POST", "/v1/adapters", {"name": "two"}, key=serving.KEY).status == 201
    return server.memory()


@pytest.mark.slow
def test_row_64_loading_and_unloading_leaks_nothing(locked: serving.Server) -> None:
    """Memory after many cycles is what it was after a few; FEATHERWEIGHT_TORTURE makes it the full thousand."""
    rounds = 1000 if os.environ.get("FEATHERWEIGHT_TORTURE") else 120
    settled = cycles(locked, 40)
    assert cycles(locked, rounds) - settled < 16_000_000


def test_row_65_an_unknown_adapter_is_404(locked: serving.Server, server: serving.Server) -> None:
    for name in ("nobody", "one/../two", "base", "@base", "One", ""):
        assert locked.predict(["great"], name or None, key=serving.KEY).status in {404, 422}
        assert locked.ask("POST", "/v1/predict", {"texts": ["a"], "model": name}, key=serving.KEY).status == 404
    assert locked.predict(["great"], key=serving.KEY).status == 422, "with several runs, one must be named"
    assert server.predict(["great"]).status == 200, "with one run, it is meant"


def test_row_66_a_client_that_goes_away_takes_its_work_with_it(adapters: Path) -> None:
    """Clients fill the queue and leave. Without cancelling, the queue would still be full of their texts."""
    body = json.dumps({"texts": ["the great film and this very plot"] * 128}).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serving.running(adapters / "one", "--token-budget", "8", "--max-waiting-tokens", "30000") as server:
        left = [server.connect() for _ in range(20)]
        for connection in left:
            connection.sendall(request)
        while b"featherweight_waiting_tokens 0.0" in server.ask("GET", "/metrics").body:
            time.sleep(0.002)
        for connection in left:
            connection.close()
        while b"featherweight_waiting_tokens 0.0" not in server.ask("GET", "/metrics").body:
            time.sleep(0.02)
        texts = [
            line
            for line in server.ask("GET", "/metrics").body.splitlines()
            if line.startswith(b"featherweight_texts_total")
        ]
        assert float(texts[0].split()[1]) < 20 * 128 / 2
        assert any(line.get("cancelled") for line in server.lines)
        assert server.predict(["great"]).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_66_a_signal_drains_and_exits_0(number: int, adapters: Path) -> None:
    """/ready says no while what was admitted is answered; then the process ends well."""
    with serving.running(adapters / "one", "--token-budget", "8", "--max-waiting-tokens", "100000") as server:
        # 100 batches of a text each for every client, so that there is something under way when the signal comes.
        texts = ["the great film and this very plot"] * 100
        kept = server.connect()
        with ThreadPoolExecutor(8) as clients, kept:
            under_way = [clients.submit(server.predict, texts) for _ in range(8)]
            while b"featherweight_waiting_tokens 0.0" in server.ask("GET", "/metrics").body:
                time.sleep(0.005)
            server.process.send_signal(number)
            while (ready := server.ask("GET", "/ready")).status == 200:
                pass
            assert ready.status == 503
            assert ready.json == {"status": "draining"}
            assert server.predict(["late"]).status == 503
            assert "retry-after" in server.predict(["late"]).headers
            ended = [one.result() for one in under_way]
        assert 200 in {one.status for one in ended}
        for one in ended:  # those that came too late were told so; no other was lost
            assert one.status == 200 or one.json == {"detail": "the server is shutting down"}
        assert server.process.wait(timeout=60) == 0


def test_row_66_an_idle_server_stops_with_0(adapters: Path) -> None:
    with serving.running(adapters / "one") as server:
        assert server.stop() == 0


def test_row_67_the_log_holds_no_texts_and_no_injected_lines(adapters: Path) -> None:
    evil = 'x\r\n{"event": "forged"}\x1b[2J'
    with serving.running(adapters / "one") as server:
        server.predict([SECRET + evil])
        server.predict([SECRET], "name" + evil)
        server.ask("GET", "/%0d%0a%7b%22event%22%3a%22forged%22%7d%1b%5b2J")
        server.ask("GET", f"/v1/models?text={SECRET}", headers={"X-Text": SECRET, "User-Agent": SECRET})
        server.ask("POST", "/v1/predict", json.dumps({"texts": SECRET}).encode())
        raw(server, b"\x1b[2J" + SECRET.encode() + b"\r\n\r\n")
        assert server.stop() == 0
    written = json.dumps(server.lines)
    assert SECRET not in written
    assert "forged" not in {line["event"] for line in server.lines}
    requests = [line for line in server.lines if line["event"] == "request"]
    assert len(requests) == 6, "what is no HTTP is logged too"
    for line in requests:
        assert {"time", "level", "request_id", "client", "method", "path", "status", "seconds"} <= set(line)
    assert requests[0]["texts"] == 1
    assert requests[0]["model"] == "one"


def test_other_mistakes_are_one_line(adapters: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, code, named in [
            ([adapters / "one", "--port", port], 2, port),
            ([adapters / "one", "--port", "99999"], 2, "65535"),
            ([adapters / "one", "--timeout", "0"], 2, "--timeout"),
            ([adapters / "one", adapters / "one"], 2, "rename"),
            ([adapters / "one", "--allow-dynamic-adapters", "nowhere"], 2, "nowhere"),
            ([tmp_path / "nothing-here"], 2, "nothing-here"),
        ]:
            ended = cli("serve", *arguments)
            assert ended.returncode == code, ended.stderr
            assert named in ended.stderr
            assert "Traceback" not in ended.stderr


def test_a_missing_extra_is_named(adapters: Path, tmp_path: Path) -> None:
    import sys

    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from featherweight.cli import main; raise SystemExit(main(sys.argv[1:]))"
    )
    ended = subprocess.run([sys.executable, "-c", code, "serve", str(adapters / "one")], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'featherweight[serve]'" in ended.stderr
