"""Starts the agent of Session Manager, so that operators with the right can open a shell."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping

from mesaform.topology.session_manager import UNIT

TIMEOUT_S = 60.0


def start_agent(environ: Mapping[str, str], log: Callable[[str], None]) -> bool:
    """Enable and start the agent's unit; whether it was started. Idempotent.

    A machine serves without it. The local hypervisor has no units: it sets no command to power a
    machine off.
    """
    if not environ.get("MESAFORM_POWEROFF"):
        return False
    command = ["systemctl", "enable", "--now", UNIT]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        log(f"Session Manager's agent does not start: {error}")
        return False
    return True
