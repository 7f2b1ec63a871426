"""What the machines of a local cloud are, kept beside its other records."""

from __future__ import annotations

from mesaform.common.errors import Busy
from mesaform.common.files import SHARED_FILE_MODE, write_atomically
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.machine_runner import MachineKind

DEFAULT: MachineKind = "processes"


def read(layout: Layout) -> MachineKind:
    """The kind of this local cloud's machines."""
    try:
        text = layout.machine_kind.read_text().strip()
    except OSError:
        return DEFAULT
    return "containers" if text == "containers" else DEFAULT


def choose(layout: Layout, kind: MachineKind, *, is_running: bool) -> None:
    """Set the kind of a local cloud's machines.

    Raises:
        Busy: it runs with the other kind, or has machines of it.

    """
    if kind == read(layout):
        return
    if is_running or _has_machines(layout):
        raise Busy(
            f"the machines of this local cloud are {read(layout)}, not {kind}",
            where=str(layout.root),
            fix="take its clusters down, stop it (mesaform local stop) and remove it "
            f"(rm -r {layout.root}), or choose local.machines: {read(layout)}",
        )
    layout.root.mkdir(parents=True, exist_ok=True)
    write_atomically(layout.machine_kind, f"{kind}\n".encode(), mode=SHARED_FILE_MODE)


def _has_machines(layout: Layout) -> bool:
    return layout.machines.is_dir() and any(layout.machines.iterdir())
