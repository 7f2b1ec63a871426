"""Source of the AWS provider: a filesystem mirror on this machine if there is one, or the registry.

A mirror below one of the usual system folders is recognised by its layout, and used if no other
user can replace the provider in it. The user's own Terraform configuration is included and wins
where it configures the installation of providers.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mesaform.common.files import write_atomically

PROVIDER = "registry.terraform.io/hashicorp/aws"
PROVIDER_VERSION = "5.100.0"
USUAL_FOLDERS = (
    "/opt",
    "/usr/share",
    "/usr/local/share",
    "/usr/local/lib",
    "/usr/lib",
    "/srv",
    "~/.terraform.d",
    "~/.local/share",
)
DEEPEST = 2  # folders between a usual folder and a mirror's root
LOCK_FILE = ".terraform.lock.hcl"
_CHECKSUMS = re.compile(r"^ *hashes = \[[^\]]*\]\n", re.MULTILINE)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def find_mirror(folders: Iterable[str | Path] = USUAL_FOLDERS) -> Path | None:
    """The root of a mirror that holds the provider for this machine."""
    return next(
        (
            root
            for folder in folders
            for root in _roots(Path(folder).expanduser())
            if _holds_provider(root) and _is_written_by_nobody_else(root)
        ),
        None,
    )


def _roots(folder: Path) -> Iterator[Path]:
    for depth in range(DEEPEST + 1):
        try:
            yield from sorted(
                folder_of_provider.parents[2]
                for folder_of_provider in folder.glob("/".join(["*"] * depth + [PROVIDER]))
            )
        except OSError:  # a folder that may not be read is none of ours
            return


def _holds_provider(root: Path) -> bool:
    """Either layout that Terraform knows: unpacked folders, or zip files."""
    machine = platform.machine()
    target = f"{sys.platform}_{_ARCHITECTURES.get(machine, machine)}"
    folder = root / PROVIDER
    return (folder / PROVIDER_VERSION / target).is_dir() or (
        folder / f"terraform-provider-aws_{PROVIDER_VERSION}_{target}.zip"
    ).is_file()


def _is_written_by_nobody_else(root: Path) -> bool:
    """Whether only root and this user may replace the provider, whose sums Terraform forgets.

    The folders above the mirror count up to the usual folder, and everything of the provider.
    """
    try:
        provider = (root / PROVIDER).resolve()
        above = [*provider.parents][: len(PROVIDER.split("/")) + DEEPEST]
        return all(map(_is_closed, (provider, *above, *provider.rglob("*"))))
    except OSError:
        return False


def _is_closed(path: Path) -> bool:
    facts = path.stat()
    is_sticky_folder = path.is_dir() and bool(facts.st_mode & stat.S_ISVTX)
    is_writable = bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and not is_sticky_folder
    return facts.st_uid in {0, os.geteuid()} and not is_writable


def configure_providers(folder: Path, folders: Iterable[str | Path] = USUAL_FOLDERS) -> Path | None:
    """Terraform's configuration file for a run; None where the registry is asked.

    Written into `folder` if there is a mirror of which the user's own configuration says nothing.
    """
    own = _own_config()
    text = own.read_text(encoding="utf-8") if own else ""
    mirror = None if "provider_installation" in text else find_mirror(folders)
    if mirror is None:
        return own
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "terraformrc"
    written.write_text(text + _installation(mirror), encoding="utf-8")
    return written


def drop_checksums(folder: Path) -> None:
    """Remove the provider's sums from the lock file that `terraform init` wrote in a folder.

    `init` has compared the provider with the registry's signed sums. With a sum in the lock file
    each later command reads all of the provider (700 MB) once more, to compare it with what `init`
    read from the same folder: half a second of processor time each (ADR 0057).
    """
    path = folder / LOCK_FILE
    if path.exists():
        text = path.read_text(encoding="utf-8")
        write_atomically(path, _CHECKSUMS.sub("", text).encode())


def _own_config() -> Path | None:
    """The user's own configuration file; `TF_CLI_CONFIG_FILE` may name a missing one."""
    named = os.environ.get("TF_CLI_CONFIG_FILE")
    path = Path(named) if named else Path("~/.terraformrc").expanduser()
    return path if path.is_file() else None


def _installation(mirror: Path) -> str:
    pattern = PROVIDER
    return f"""
provider_installation {{
  filesystem_mirror {{
    path    = "{mirror}"
    include = ["{pattern}"]
  }}
  direct {{
    exclude = ["{pattern}"]
  }}
}}
"""
