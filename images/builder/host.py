"""The machine that is baked: its root folder, and commands on it. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class StepFailed(Exception):
    """A step failed; the message says what failed and, where a person can help, what to do."""


@dataclass(frozen=True)
class Host:
    """A machine to bake.

    `root` is `/` on a real machine. On the local cloud it is a folder: system packages are then
    those of the surrounding machine and are only checked. `base_image` is the image that a builder
    booted from.
    """

    root: Path
    bundle: Path
    log: Path
    base_image: str = ""

    @property
    def is_whole_machine(self) -> bool:
        """Whether this program may install system packages and units."""
        return self.root == Path("/")

    @property
    def home(self) -> Path:
        """The product's folder in the image."""
        return self.root / "opt/mesaform"

    @property
    def python(self) -> Path:
        """The interpreter of the image's environment."""
        return self.home / "venv/bin/python"

    def note(self, line: str) -> None:
        """Append a line to the bake's log."""
        with self.log.open("a") as log:
            log.write(line + "\n")

    def run(
        self, *argv: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 900
    ) -> str:
        """Run a command, log its output, and return its standard output.

        Raises:
            StepFailed: it did not start, took too long, or failed (with the end of its output).

        """
        command = [str(part) for part in argv]
        self.note("$ " + " ".join(command))
        try:
            result = subprocess.run(
                command,
                env=self._environment(env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StepFailed(f"{command[0]}: {error}") from None
        self.note(result.stdout + result.stderr)
        if result.returncode != 0:
            tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
            raise StepFailed(f"{' '.join(command)[:200]} ended with {result.returncode}:\n{tail}")
        return result.stdout

    def install(self, packages: Sequence[str]) -> None:
        """Install Debian packages. Idempotent.

        Raises:
            StepFailed: apt-get failed.

        """
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        self.run(
            "apt-get",
            "-q",
            "-y",
            "-o",
            "DPkg::Lock::Timeout=300",
            "install",
            "--no-install-recommends",
            *packages,
            env=env,
        )

    def program(self, name: str) -> str | None:
        """Return the path of a program on this machine, or None."""
        return shutil.which(name)

    @staticmethod
    def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
        # Settings of another Python environment must not affect the image's.
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA"))
        }
        return {**inherited, **(extra or {})}
