"""Files onto the Hugging Face hub, through its own client, all in one commit: they are there whole or not at all."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.errors import ConfigError, ModelError, first_line
from featherweight.process.quiet import quiet
from featherweight.sources.hub import MODEL_FILES, is_offline

_RETRY = "nothing was published; the same command pushes again"
# What the hub's answers mean to somebody who pushes, by their status.
_MEANING = {
    401: "the hub refuses the token; run `hf auth login`, or set HF_TOKEN to one that may write",
    403: "the token may not write there; take one that may, or a name under your own account",
    409: "the hub has something of this name already; choose another",
    412: f"somebody else pushed meanwhile; {_RETRY}",
}


@dataclass(frozen=True)
class Pushed:
    """What became of files that were pushed.

    Attributes:
        url: of the repository.
        commit: that holds them.
        is_new: whether the commit was made for them; else the hub had each of them as it is.
        is_public: whether anybody can see them.
        removed: files of an earlier push that went with this one.
    """

    url: str
    commit: str
    is_new: bool
    is_public: bool
    removed: tuple[str, ...]


def require_name(name: str) -> None:
    """Raises ConfigError where the hub can have no repository of this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise ConfigError("USER/NAME: one name of letters, digits, '.', '_' and '-' on each side of the '/' is wanted")


def push(name: str, files: Mapping[str, Path | bytes], *, public: bool, mark: str, message: str) -> Pushed:
    """Put files into a model repository, which is made where there is none. What a loader would read there besides,
    left from an earlier push, is taken away in the same commit; all else stays.

    Args:
        files: path in the repository to content.
        public: whether anybody may see them. A repository that is there stays as it is, and is refused where it is
            public and this is not.
        mark: the file by which a repository is known to have been pushed so.

    Raises:
        ConfigError: the name is another model's.
        ModelError: the hub can't be reached, or refuses it; nothing is published.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    with _explained(name), quiet("huggingface_hub"):
        if is_offline():
            raise ModelError(f"{name}: HF_HUB_OFFLINE is set; unset it to push")
        if get_token() is None:
            raise ModelError(f"{name}: no token of the hub; run `hf auth login`, or set HF_TOKEN to one that may write")
        api = HfApi()
        before = _repository(api, name, public)
        removed = _left(name, {one.rfilename for one in before.siblings or ()}, files, mark)
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in files.items()]
        operations += [CommitOperationDelete(path) for path in removed]
        made = api.create_commit(name, operations, commit_message=message, parent_commit=before.sha)
    is_new = made.oid != before.sha
    return Pushed(f"{api.endpoint}/{name}", made.oid, is_new, not before.private, tuple(removed))


def _repository(api: Any, name: str, public: bool) -> Any:
    """What the hub says of the repository, which is there from now on."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.model_info(name)
    except RepositoryNotFoundError:
        api.create_repo(name, private=not public)
        return api.model_info(name)
    if not (found.private or public):
        raise ConfigError(f"{name}: the repository is public; give --public too, or choose another name")
    return found


def _left(name: str, there: set[str], files: Mapping[str, Path | bytes], mark: str) -> list[str]:
    """What an earlier push left at the top of the repository and this one does not have."""
    read = sorted(
        path
        for path in there
        if "/" not in path and any(fnmatch.fnmatchcase(path, one) for one in (*MODEL_FILES, "report.html"))
    )
    if read and mark not in there:
        raise ConfigError(f"{name}: holds {read[0]}, which `push` did not put there; choose another name")
    return [path for path in read if path not in files]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Map what goes wrong to one line. A token is in none: what the hub says is taken, and no request."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        status, said = _answer(error)
        if status is None:
            raise ModelError(
                f"{name}: the hub can't be reached, or the connection broke off ({first_line(error)}); {_RETRY}"
            ) from error
        why = f"{status}, {said}" if said else str(status)
        meaning = _MEANING.get(status, _RETRY)
        kind = ConfigError if status == 409 else ModelError
        raise kind(f"{name}: the hub says {why}: {meaning}") from error


def _answer(error: BaseException | None) -> tuple[int | None, str]:
    """Status and words of the hub's answer that an error comes from; None where there was no answer."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            said = " ".join(str(getattr(error, "server_message", None) or "").split())
            return response.status_code, said[:200]
        error = error.__cause__
    return None, ""
