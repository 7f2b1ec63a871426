"""Names of what a local cloud creates on its host. They tell the owner. Pure.

Linux limits the name of a network device to 15 characters, so that names have hashes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

BRIDGE_PREFIX, PORT_PREFIX = "mfb", "mfp"
SPACE_PREFIX = "mesaform-"


@dataclass(frozen=True, slots=True)
class Owner:
    """The local cloud in the folder `root`."""

    root: Path

    @property
    def mark(self) -> str:
        """Seven hexadecimal digits of the folder, in every name."""
        return _digits(str(self.root.resolve()), 7)

    def bridge(self, vpc_id: str) -> str:
        """The bridge of a VPC."""
        return f"{BRIDGE_PREFIX}{self.mark}{_digits(vpc_id, 5)}"

    def port(self, instance_id: str) -> str:
        """The host's end of a machine's network device."""
        return f"{PORT_PREFIX}{self.mark}{_digits(instance_id, 5)}"

    def space(self, instance_id: str) -> str:
        """The network namespace of a machine."""
        return f"{self.space_prefix}{instance_id}"

    @property
    def space_prefix(self) -> str:
        """What the names of all network namespaces of this owner begin with."""
        return f"{SPACE_PREFIX}{self.mark}-"

    @property
    def bridge_prefix(self) -> str:
        """What the names of all bridges of this owner begin with."""
        return f"{BRIDGE_PREFIX}{self.mark}"

    @property
    def table(self) -> str:
        """The table of the packet filter."""
        return f"mesaform_{self.mark}"

    @property
    def control_group(self) -> str:
        """The control group above those of the machines."""
        return f"mesaform-{self.mark}"


def _digits(text: str, count: int) -> str:
    return f"{zlib.crc32(text.encode()):08x}"[:count]
