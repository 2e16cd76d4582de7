"""A server for finished models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.errors import ConfigError

if TYPE_CHECKING:
    from featherweight.serving.settings import Settings


def serve(
    targets: Sequence[str],
    settings: Settings,
    *,
    quiet: bool,
    say: Callable[[str], None],
    base_model: str | None = None,
) -> None:
    """Answer over HTTP for runs, adapters and models, until SIGTERM or SIGINT.

    Raises:
        ConfigError: the server's packages are missing, names clash, a key is wanted and there is none, or the address
            can't be listened on.
        ModelError: something can't be loaded.
    """
    if settings.key is None and not settings.is_local:
        raise ConfigError(
            f"--host {settings.host}: others could reach this address, so it needs a key; set FEATHERWEIGHT_API_KEY or "
            "--api-key-file"
        )
    if settings.dynamic is not None and not Path(settings.dynamic).is_dir():
        raise ConfigError(f"--allow-dynamic-adapters {settings.dynamic}: no such folder")
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"serve: {error.name} is not installed; run: pip install 'featherweight[serve]'") from None
    from featherweight.serving.catalogue import Catalogue, names_of

    named = names_of(targets)
    catalogue = Catalogue(base_model)
    for name, path in named.items():
        catalogue.load(name, path)
        say(f"{name}: loaded from {path}")
    from featherweight.serving.server import serve as listen

    listen(catalogue, settings, quiet)
