"""Folders of the tools around Terraform: the checkout's cdktf, and caches.

In a checkout, cdktf's command line is in `node_modules` beside `cdktf.json` (`scripts/setup`
installs it). Synthesis does not need it. A program that was installed from a wheel keeps its caches
in `$MESAFORM_CACHE_DIR`, or in `mesaform/<version>` of `$XDG_CACHE_HOME` (default `~/.cache`).
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

CACHE_DIR = "MESAFORM_CACHE_DIR"


def checkout_root() -> Path | None:
    """The checkout that this program runs from; None if it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    is_checkout = (root / "pyproject.toml").is_file() and (root / "cdktf.json").is_file()
    return root if is_checkout else None


def jsii_cache() -> Path:
    """Where jsii unpacks its packages."""
    if root := checkout_root():
        return root / "node_modules" / ".cache" / "jsii"
    return _cache_folder() / "jsii"


def _cache_folder() -> Path:
    if named := os.environ.get(CACHE_DIR):
        return Path(named).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "mesaform" / metadata.version("mesaform")
