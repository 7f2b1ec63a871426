"""Runs programs of this host that change its network and its files."""

from __future__ import annotations

import asyncio
import subprocess

TIMEOUT_S = 30.0


class CommandFailed(OSError):
    """A program failed; the message has its command line and what it printed."""


def run(*command: str, text: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Run a program with `text` as its standard input; its standard output. Blocks.

    Raises:
        CommandFailed: it did not start, took too long, or failed.

    """
    try:
        result = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{' '.join(command)}: {error}") from None
    if result.returncode != 0:
        shown = " ".join(command)
        printed = (result.stderr + result.stdout).strip()[-600:]
        raise CommandFailed(f"{shown} ended with {result.returncode}: {printed}")
    return result.stdout


async def run_async(*command: str, text: str = "") -> str:
    """Run a program in a thread. Errors are those of `run`."""
    return await asyncio.to_thread(run, *command, text=text)
