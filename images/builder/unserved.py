"""Powers a machine of the autoscaler off whose node never started: `python3 -I unserved.py`.

A timer runs it an hour after the boot. The lease of a machine is a service of its node, so a
machine without a node would be billed until a person sees it. Only machines whose user data has a
lease are powered off; those of Terraform are a person's. Standard library only, and the system's
own interpreter: the environment of the image may be what is broken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

NODE = "mesaform-node.service"
ENDPOINT = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
SESSION_HEADER = "X-aws-ec2-metadata-token"
TIMEOUT_S = 10.0


def main() -> int:
    """Power the machine off if nothing serves on it and nothing else would end it."""
    if has_node_served() or not is_leased(read_metadata("user-data")):
        return 0
    sys.stdout.write(f"{NODE} never started on this machine: powering it off\n")
    sys.stdout.flush()
    return subprocess.run(["systemctl", "poweroff"], check=False).returncode


def has_node_served() -> bool:
    """Whether the node has been active since this boot."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "--value", NODE],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip() not in ("", "0")


def is_leased(user_data: bytes) -> bool:
    """Whether user data is a node document with a lease."""
    try:
        document = json.loads(user_data)
    except ValueError:
        return False
    return isinstance(document, dict) and bool(document.get("lease"))


def read_metadata(path: str) -> bytes:
    """An entry of the metadata service of EC2 (version 2), such as `user-data`."""
    session = _ask("PUT", "api/token", {f"{SESSION_HEADER}-ttl-seconds": "60"}).decode()
    return _ask("GET", path, {SESSION_HEADER: session})


def _ask(method: str, path: str, headers: dict[str, str]) -> bytes:
    request = urllib.request.Request(f"{ENDPOINT}/latest/{path}", None, headers, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        content: bytes = answer.read()
    return content


if __name__ == "__main__":
    sys.exit(main())
