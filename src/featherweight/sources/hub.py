"""The Hugging Face hub, through its own client: ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT``
mean here what they mean everywhere. Its errors are mapped to one line each; a token never appears in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.errors import ConfigError, ModelError, first_line

if TYPE_CHECKING:
    import datasets

# What a model needs at the top of its repository; other frameworks' weights and pickles are not even downloaded.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt", "*.jinja")


def split_revision(name: str) -> tuple[str, str | None]:
    """``OWNER/NAME@REVISION`` as the repository's name and what it is pinned to, if anything."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


@cache
def download_model(name: str, revision: str | None) -> tuple[Path, str]:
    """Bring a model or adapter repository into the hub cache. A branch is looked up once a process: whatever is asked
    of it afterwards is asked of one commit.

    Returns:
        Its folder, and the commit it was resolved to.
    """
    from huggingface_hub import snapshot_download

    with _explained("model", name, revision):
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=[*MODEL_FILES], ignore_patterns=["*/*"])
        )
    return folder, folder.name


def load_dataset(name: str, config: str | None, revision: str | None) -> dict[str, tuple[datasets.Dataset, str]]:
    """Bring a data set into the cache, memory-mapped.

    Returns:
        Split name to rows and the fingerprint that identifies their content.

    Raises:
        ConfigError: the name is no hub id.
        ModelError: the hub has no such data set, or can't be reached.
    """
    import datasets as library
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as kinds

    if name in kinds:  # by these, datasets reads whatever lies in the current folder and below it
        raise ConfigError(f"data.name: {name!r} is a kind of file and no data set; name the file in data.train_file")
    with _explained("data set", name, revision):
        loaded = library.load_dataset(name, config, revision=revision)
    return {str(split): (rows, rows._fingerprint) for split, rows in loaded.items()}


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` says so, as the hub's client reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


@contextmanager
def _explained(kind: str, name: str, revision: str | None) -> Iterator[None]:
    import httpx2
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import errors

    where = f"{kind} {name!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        yield
    except errors.HFValidationError:
        raise ConfigError(f"{name!r} is neither a file or folder here nor a hub id such as 'owner/name'") from None
    except errors.GatedRepoError:
        raise ModelError(f"{where}: access is gated; accept its terms on the hub, then set HF_TOKEN") from None
    except (errors.RepositoryNotFoundError, DatasetNotFoundError):
        token = "the HF_TOKEN given has no access to it" if os.environ.get("HF_TOKEN") else "it needs HF_TOKEN"
        raise ModelError(
            f"{where}: no such folder here, and the hub has none of that name, or it is private and {token}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{where}: the hub has no such revision") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError):
        if is_offline():
            raise ModelError(
                f"{where}: no such folder here, HF_HUB_OFFLINE is set and the hub's cache has no complete copy of it"
            ) from None
        raise ModelError(
            f"{where}: no such folder here, the hub can't be reached, and its cache has no complete copy of it"
        ) from None
    except (errors.HfHubHTTPError, httpx2.HTTPError, DatasetsError, OSError, ValueError) as error:
        raise ModelError(f"{where}: can't be loaded from the hub: {first_line(error)}") from error
