"""The page at ``/``: one self-contained file that knows nothing of the server but its addresses."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files


@cache
def _asset(name: str) -> str:
    return (files("featherweight.serving") / "assets" / name).read_text(encoding="utf-8")


@cache
def html() -> bytes:
    page = _asset("page.html")
    return page.replace("/*style*/", _asset("page.css")).replace("/*script*/", _asset("page.js")).encode()


@cache
def policy() -> str:
    """Content-Security-Policy: this style and this script, and requests to this server alone."""
    return (
        f"default-src 'none'; script-src '{_hash('page.js')}'; style-src '{_hash('page.css')}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(name: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()
