"""Files that an installed Python package ships: ``package:NAME/PATH``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from featherweight.errors import ConfigError
from featherweight.recipe import PACKAGE_PREFIX
from featherweight.storage.names import exists


def locate(name: str) -> Path:
    """The path of the file or folder that ``package:NAME/PATH`` means; the package is not imported.

    Raises:
        ConfigError: the package is not installed, or ships no such file.
    """
    package, _, inner = name.removeprefix(PACKAGE_PREFIX).partition("/")
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{name}: the package {package!r} is not installed; run: pip install {package}")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    try:
        path = (root / inner).resolve()
    except (OSError, ValueError, RuntimeError):
        raise ConfigError(f"{name!r}: the package {package!r} ships no such file") from None
    if not path.is_relative_to(root) or not exists(path):
        raise ConfigError(f"{name}: the package {package!r} ships no {inner!r}")
    return path
