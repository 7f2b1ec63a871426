"""Location and installation of the locked cdktf command line.

In a checkout, cdktf is in `node_modules` beside `cdktf.json` (`scripts/setup` installs it). A
program that was installed from a wheel has `cdktf.json`, `package.json` and `package-lock.json` as
package data. On first use it copies them into a cache folder and runs `npm ci` there. The cache
folder is `$MESAFORM_CACHE_DIR`, or `mesaform/<version>` in `$XDG_CACHE_HOME` (default
`~/.cache`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from importlib import metadata, resources
from pathlib import Path

from mesaform.common.errors import MissingPrerequisite
from mesaform.common.files import write_atomically
from mesaform.common.progress import Report, stage
from mesaform.provision.lock import hold

CACHE_DIR = "MESAFORM_CACHE_DIR"
TOOL_FILES = ("cdktf.json", "package.json", "package-lock.json")
STAMP = ".mesaform-lock-digest"
"""Holds the digest of the lock file from which node_modules was installed."""
INSTALL = ("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
INSTALL_TIMEOUT_S = 900.0
INSTALL_STAGE = "Install cdktf (once)"


def checkout_root() -> Path | None:
    """The checkout that this program runs from; None if it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    is_checkout = (root / "pyproject.toml").is_file() and (root / "cdktf.json").is_file()
    return root if is_checkout else None


def tools_folder() -> Path:
    """The folder of `cdktf.json` and `node_modules`: the checkout, or the cache folder."""
    if root := checkout_root():
        return root
    if named := os.environ.get(CACHE_DIR):
        return Path(named).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "mesaform" / metadata.version("mesaform")


def cdktf_program(folder: Path | None = None) -> Path:
    """The locked cdktf.

    Raises:
        MissingPrerequisite: it is not installed.

    """
    folder = folder or tools_folder()
    program = folder / "node_modules" / ".bin" / "cdktf"
    if not program.exists():
        fix = "make up, or npm ci" if checkout_root() else "mesaform up installs it"
        raise MissingPrerequisite("cdktf is missing", where=str(program), fix=fix)
    return program


def install_tools(report: Report) -> None:
    """Install cdktf into the cache folder unless it is there. Idempotent; nothing in a checkout.

    Raises:
        MissingPrerequisite: npm is missing, or could not install what the lock file names.
        Busy: another run is installing.

    """
    if checkout_root():
        return
    folder = tools_folder()
    if _is_installed(folder):
        return
    with stage(report, INSTALL_STAGE, str(folder)) as under_way, hold(folder / "lock", "npm ci"):
        under_way.advance("npm ci; this may take some minutes")
        _install(folder)
        under_way.outcome = str(folder)


def _is_installed(folder: Path) -> bool:
    program, stamp = folder / "node_modules" / ".bin" / "cdktf", folder / STAMP
    return program.exists() and stamp.exists() and stamp.read_text() == _lock_digest()


def _install(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPrerequisite(
            "npm is missing; it installs cdktf once",
            where=str(folder),
            fix="install Node.js 20 or newer, which contains npm",
        )
    for name in TOOL_FILES:
        write_atomically(folder / name, _packaged(name))
    try:
        ended = subprocess.run(
            [npm, *INSTALL],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingPrerequisite(
            f"npm did not end within {INSTALL_TIMEOUT_S:.0f} s",
            where=str(folder),
            fix="check the network and npm's registry, then run the same command again",
        ) from None
    if ended.returncode:
        raise MissingPrerequisite(
            f"npm could not install cdktf: {ended.stderr.strip() or ended.stdout.strip()}",
            where=str(folder),
            fix="check the network and npm's registry, then run the same command again",
        )
    write_atomically(folder / STAMP, _lock_digest().encode())


def _packaged(name: str) -> bytes:
    return (resources.files("mesaform_stacks") / "tools" / name).read_bytes()


def _lock_digest() -> str:
    return hashlib.sha256(_packaged("package-lock.json")).hexdigest()
