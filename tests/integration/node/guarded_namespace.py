"""A program for a network namespace of its own: EC2's metadata address, before and after the guard.

`unshare --net python -m tests.integration.node.guarded_namespace` prints who can connect.
"""

from __future__ import annotations

import socket
import subprocess
import sys

from mesaform.node import metadata_guard

NOBODY = 65534
CONNECT = f"exec 3<>/dev/tcp/{metadata_guard.IPV4}/80"


def can_connect(uid: int) -> bool:
    result = subprocess.run(["bash", "-c", CONNECT], user=uid, capture_output=True, check=False)
    return result.returncode == 0


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{metadata_guard.IPV4}/32", "dev", "lo"], check=True)
    with socket.create_server((metadata_guard.IPV4, 80)):
        sys.stdout.write(f"open: root {can_connect(0)}, task {can_connect(NOBODY)}" + "\n")
        for _ in range(2):
            metadata_guard.close_to_tasks()
        sys.stdout.write(f"closed: root {can_connect(0)}, task {can_connect(NOBODY)}" + "\n")


if __name__ == "__main__":
    main()
