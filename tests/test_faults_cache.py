"""What others may write is never trusted, and a compiler may do what it likes: fault list rows 86 and 100.

Another user is a real one: the tests plant files as ``nobody`` and work as ``nobody`` where they run as root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from featherweight.engine.fast import kernels
from featherweight.errors import ResourceError
from featherweight.inference.backends import answers_of
from featherweight.inference.predictor import Predictor
from featherweight.records.questions import Question, Tokens
from featherweight.storage.cache import cache_folder, cached, file_hash, problem
from featherweight.storage.whole import new_folder, tidy, write_file, write_folder
from featherweight.tasks.sequence_classification import SequenceClassification

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work as another user")
compiles = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in a place that every user can reach."""
    for one in (tmp_path, *tmp_path.parents):
        if one.stat().st_uid == os.geteuid() and one.name.startswith(("pytest", "popen-")):
            one.chmod(0o755)
    tmp_path.chmod(0o755)
    folder = tmp_path / "shared"
    folder.mkdir(0o755)
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return folder


def fill(folder: Path) -> None:
    (folder / "content").write_text("mine")


def entry() -> str:
    return (cached("thing", "key", fill) / "content").read_text()


def give(path: Path, user: int = NOBODY) -> None:
    for one in (path, *path.rglob("*")):
        os.chown(one, user, user, follow_symlinks=False)


# Row 86: the cache.


def planted_in_a_folder_of_everybody(shared: Path) -> None:
    shared.chmod(0o777)
    plant(shared / "thing-key")


def planted_where_its_owner_may_rename(shared: Path) -> None:
    shared.chmod(0o1777)
    plant(shared / "thing-key")


def planted_in_their_own_folder(shared: Path) -> None:
    plant(shared / "thing-key")
    os.chown(shared, NOBODY, NOBODY)


def planted_below_a_folder_of_everybody(shared: Path) -> None:
    plant(shared / "thing-key", owner=0)
    shared.parent.chmod(0o777)


def planted_as_a_link(shared: Path) -> None:
    plant(shared.parent / "elsewhere")
    (shared / "thing-key").symlink_to(shared.parent / "elsewhere")


def planted_in_an_entry_of_everybody(shared: Path) -> None:
    plant(shared / "thing-key", owner=0)
    (shared / "thing-key").chmod(0o777)


def plant(folder: Path, owner: int = NOBODY) -> None:
    folder.mkdir()
    (folder / "content").write_text("theirs")
    give(folder, owner)


@as_root
@pytest.mark.parametrize(
    "planting",
    [
        planted_in_a_folder_of_everybody,
        planted_where_its_owner_may_rename,
        planted_in_their_own_folder,
        planted_below_a_folder_of_everybody,
        planted_as_a_link,
        planted_in_an_entry_of_everybody,
    ],
)
def test_row_86_what_another_user_may_have_put_into_the_cache_is_not_used(
    planting: Callable[[Path], None], shared: Path
) -> None:
    assert entry() == "mine"  # the control: in a folder of ours it is found again
    (shared / "thing-key" / "content").write_text("mine again")
    assert entry() == "mine again"
    shutil.rmtree(shared / "thing-key")
    planting(shared)
    for _ in range(2):
        assert entry() == "mine"
    place = cache_folder()
    assert (place / "thing-key").stat().st_uid == os.geteuid()
    assert (place / "thing-key").stat().st_mode & 0o077 == 0
    assert (problem() is None) == (place == shared)
    if planting is not planted_as_a_link:
        assert problem() is None or str(place) in str(problem())
    else:
        assert (shared.parent / "elsewhere" / "content").read_text() == "theirs"


AS_NOBODY = """
import grp, json, os, pwd
import featherweight.storage.cache as cache
os.setgroups([]); os.setgid({group}); os.setuid({user})
made = cache.cached("thing", "key", lambda folder: (folder / "content").write_text("theirs"))
print(json.dumps([str(made), (made / "content").read_text(), made.stat().st_uid]))
"""


def as_user(user: int, group: int, **environment: str) -> tuple[Path, str, int]:
    ended = subprocess.run(
        [sys.executable, "-c", AS_NOBODY.format(user=user, group=group)], capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    place, content, owner = json.loads(ended.stdout)
    return Path(place), content, owner


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o777, 0o700])
def test_row_86_a_second_user_of_a_shared_cache_has_a_place_of_their_own(
    mode: int, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    temporary = tmp_path_factory.mktemp("tmp")
    for one in (temporary.parent, temporary):
        one.chmod(0o1777)
    assert entry() == "mine"
    shared.chmod(mode)
    place, content, owner = as_user(NOBODY, NOBODY, TMPDIR=str(temporary))
    assert (content, owner) == ("theirs", NOBODY)
    inside = mode == 0o1777  # else it can't be made there, or could be replaced
    assert place.parent == (shared / f"user-{NOBODY}" if inside else temporary / f"featherweight-{NOBODY}")
    temporary.parent.chmod(0o700)


@as_root
def test_row_86_a_group_may_write_where_it_is_the_users_own(shared: Path) -> None:
    """As umask 002 leaves folders where each user has a group of that name."""
    import pwd

    user = pwd.getpwnam("daemon")
    os.chown(shared, user.pw_uid, user.pw_gid)
    shared.chmod(0o775)
    assert as_user(user.pw_uid, user.pw_gid)[0].parent == shared
    os.chown(shared, user.pw_uid, 100)
    assert as_user(user.pw_uid, user.pw_gid)[0].parent != shared


def test_row_86_the_cache_is_made_for_its_user_alone_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0)
    try:
        assert entry() == "mine"
    finally:
        os.umask(before)
    for one in (tmp_path / "new", tmp_path / "new" / "cache", tmp_path / "new" / "cache" / "thing-key"):
        assert one.stat().st_mode & 0o777 == 0o700


def test_row_86_a_cache_that_can_not_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ResourceError, match="set FEATHERWEIGHT_CACHE"):
        entry()


def status_of_kernels() -> str:
    code = "from featherweight.engine.fast import kernels; print(kernels.status())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@as_root
@compiles
def test_row_86_a_planted_library_is_not_run(shared: Path) -> None:
    assert "compiled by" in status_of_kernels()
    (library,) = shared.glob("kernels-*/kernels.so")
    source = shared.parent / "evil.c"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void run(void) {{ fopen("{shared.parent}/ran", "w"); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    (library.parent / "kernels.so.sha256").write_text(file_hash(library))
    status_of_kernels()
    assert (shared.parent / "ran").exists(), "the control: it runs where it is believed"
    (shared.parent / "ran").unlink()
    give(library.parent)
    shared.chmod(0o777)
    assert "compiled by" in status_of_kernels()
    assert not (shared.parent / "ran").exists()


@pytest.mark.slow
@compiles
@pytest.mark.parametrize("damage", [b"no library", None])
def test_row_86_a_library_that_is_not_as_it_was_built_is_built_anew(damage: bytes | None, own_cache: Path) -> None:
    assert "compiled by" in kernels.status()
    (library,) = own_cache.glob("kernels-*/kernels.so")
    whole = library.read_bytes()
    library.unlink()  # the one in memory stays as it is
    library.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    kernels._load.cache_clear()
    assert "compiled by" in kernels.status()
    assert library.stat().st_size == len(whole)
    assert file_hash(library) == (library.parent / "kernels.so.sha256").read_text()


# Row 86: what is written aside.


class Answers:
    """A backend that answers by the text's length, after ``meanwhile``."""

    task = SequenceClassification(("neg", "pos"))
    fitted: Mapping[str, Any] = {}
    text_columns = ()
    max_length = 512

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.meanwhile = meanwhile

    def tokenise(self, asked: Sequence[Question]) -> list[Tokens]:
        return [Tokens([len(one.text)]) for one in asked]

    def answers(self, rows: Sequence[Tokens], options: Mapping[str, Any], heard: Any = None) -> Any:
        return answers_of(self, rows, options)

    def outputs(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        self.meanwhile()
        return np.asarray([[row.ids[0], 3] for row in rows], dtype=np.float32)


def test_row_86_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    tiny.save_csv(tmp_path / "in.csv", tiny.rows(4))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".out.csv.part", ".new-out.csv"):
        (tmp_path / name).symlink_to(victim)
    assert Predictor(Answers()).predict_file(tmp_path / "in.csv", tmp_path / "out.csv") == 4
    assert victim.read_text() == "precious"
    assert not (tmp_path / "out.csv").is_symlink()


def test_row_86_two_predictions_into_one_file_do_not_meet(tmp_path: Path) -> None:
    tiny.save_csv(tmp_path / "many.csv", tiny.rows(40))
    tiny.save_csv(tmp_path / "few.csv", tiny.rows(2))
    out = tmp_path / "out.jsonl"
    seen = []

    def meanwhile() -> None:
        Predictor(Answers()).predict_file(tmp_path / "few.csv", out)
        seen.append(len(out.read_text().splitlines()))

    assert Predictor(Answers(meanwhile)).predict_file(tmp_path / "many.csv", out) == 40
    assert seen == [2]
    assert len(out.read_text().splitlines()) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.csv", "many.csv", "out.jsonl"]


def test_row_86_what_is_published_has_the_umasks_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "file", lambda stream: stream.write(b"x"))
        write_folder(tmp_path / "folder", fill)
        tiny.save_csv(tmp_path / "in.csv", tiny.rows(4))
        Predictor(Answers()).predict_file(tmp_path / "in.csv", tmp_path / "out.parquet")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "folder": 0o750, "in.csv": 0o640, "out.parquet": 0o640}


def test_row_86_what_a_kill_left_is_tidied_whatever_its_name(tmp_path: Path) -> None:
    with new_folder(tmp_path / "adapter") as aside:
        shutil.copytree(aside, f"{aside}-left")
        (tmp_path / ".new-link").symlink_to(tmp_path.parent, target_is_directory=True)
        left = [path.name for path in tmp_path.iterdir()]
    assert all(name.startswith(".new-") for name in left)
    assert len(left) == 3
    tidy(tmp_path)
    assert list(tmp_path.iterdir()) == []


# Row 100: compilers.


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new cache, and kernels that nobody asked for yet."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "cache"))
    for one in (kernels._load, kernels.load):
        one.cache_clear()
    yield tmp_path / "cache"
    for one in (kernels._load, kernels.load):
        one.cache_clear()


_OUTPUT = 'while [ "$1" ] && [ "$1" != -o ]; do shift; done; [ "$1" ] || exit 0;'
BROKEN = {
    "silent": ("#!/bin/sh\nexit 1\n", "it says nothing; exit code 1"),
    "silent when it compiles": ('#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit 0\nexit 1\n', "it says nothing"),
    "words": (
        "#!/bin/sh\necho one >&2; echo 'fatal error: no headers' >&2; echo end >&2; exit 4\n",
        "no headers; exit",
    ),
    "bytes": ("#!/bin/sh\nprintf '\\377\\376\\033[2J\\n' >&2; exit 1\n", "exit code 1"),
    "killed": ("#!/bin/sh\nkill -9 $$\n", "signal 9"),
    "hangs": ("#!/bin/sh\nexec sleep 60\n", "no answer in"),
    "hangs in a child": ("#!/bin/sh\nsleep 60 & sleep 60\n", "no answer in"),
    "hangs when it compiles": ('#!/bin/sh\n[ "$1" = --version ] && exit 0\nsleep 60\n', "no answer in"),
    "writes nothing": ("#!/bin/sh\nexit 0\n", "wrote no file"),
    "writes text": (f"#!/bin/sh\n{_OUTPUT} echo text > $2\n", "not the library"),
    "writes a folder": (f"#!/bin/sh\n{_OUTPUT} mkdir $2\n", "wrote no file"),
    "writes another library": (
        f"#!/bin/sh\n{_OUTPUT} echo 'int x;' > $2.c; {shutil.which('cc')} -shared -fPIC $2.c -o $2\n",
        "not the library",
    ),
    "no program": ("\x7fELF broken", "it can't be started"),
    "no interpreter": ("#!/no/such/shell\n", "it can't be started"),
}


@compiles
@pytest.mark.parametrize("kind", BROKEN)
def test_row_100_a_broken_compiler_is_a_reason(
    kind: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, reason = BROKEN[kind]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cc").write_text(script)
    (tmp_path / "bin" / "cc").chmod(0o755)
    with monkeypatch.context() as changed:
        changed.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        for limit in ("_VERSION_SECONDS", "_BUILD_SECONDS"):
            changed.setattr(kernels, limit, 1.0)
        assert kernels.load() is None
        status = kernels.status()
    assert reason in status
    assert status.startswith(f"{tmp_path / 'bin' / 'cc'} could not build them (")
    assert status.isprintable()
    assert list(own_cache.glob("*kernels*")) == [], "what a broken compiler left would be believed by a mended one"


@compiles
def test_row_100_the_doctor_tells_of_a_broken_compiler(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FEATHERWEIGHT_CACHE": str(tmp_path / "c")}
    ended = cli("doctor", "--json", env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "it says nothing" in json.loads(ended.stdout)["speed"]["compiled kernels"]
