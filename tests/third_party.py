"""The package of a third party, installed as an installer leaves it: a module, and metadata that names its parts."""

from __future__ import annotations

import shutil
from pathlib import Path

SOURCE = Path(__file__).parent / "package"
NAME = "featherweight_ranked"


def install(site: Path) -> Path:
    """Put it into a folder that is to be on the path; gives the folder."""
    metadata = site / f"{NAME}-1.0.dist-info"
    metadata.mkdir(parents=True)
    shutil.copy(SOURCE / "ranked.py", site)
    shutil.copy(SOURCE / "entry_points.txt", metadata)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "RECORD").write_text("", encoding="utf-8")
    return site
