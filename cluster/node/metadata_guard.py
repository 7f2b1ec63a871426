"""Closes the metadata service of EC2 to every user but root, with nftables.

The service gives whoever asks the machine's identity document, user data and credentials. Tasks
run as other users. The local cloud's service asks for the user itself. The rules do not outlive a
boot, so the node sets them before it starts services. Reference: nft(8), "meta skuid".
"""

from __future__ import annotations

import subprocess

from mesaform.node.imds import DEFAULT_ENDPOINT

IPV4, IPV6 = "169.254.169.254", "fd00:ec2::254"
PROGRAM = "nft"
TIMEOUT_S = 10.0

RULES = f"""\
table inet mesaform_metadata
delete table inet mesaform_metadata
table inet mesaform_metadata {{
  chain output {{
    type filter hook output priority 0; policy accept;
    ip daddr {IPV4} meta skuid != 0 reject
    ip6 daddr {IPV6} meta skuid != 0 reject
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    ip daddr {IPV4} reject
    ip6 daddr {IPV6} reject
  }}
}}
"""
"""Replaces the table as a whole; `forward` is for containers with a network of their own."""


class CannotClose(ValueError):
    """The rules cannot be set, so this machine must not run tasks."""


def close_to_tasks(endpoint: str = DEFAULT_ENDPOINT, program: str = PROGRAM) -> bool:
    """Set the rules. Returns whether the endpoint is EC2's, which alone needs them. Idempotent.

    Raises:
        CannotClose: nftables is missing or refuses the rules.

    """
    if endpoint != DEFAULT_ENDPOINT:
        return False
    try:
        result = subprocess.run(
            [program, "-f", "-"],
            input=RULES,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotClose(
            f"the metadata service cannot be closed to tasks: {error}: bake an image with nftables"
        ) from None
    if result.returncode != 0:
        raise CannotClose(
            f"the metadata service cannot be closed to tasks: {result.stderr.strip()[:300]}"
        )
    return True
