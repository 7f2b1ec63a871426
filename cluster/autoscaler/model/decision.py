"""A decision is one record: what, how much, why, in dollars, and whether it was carried out.

From it come the log line, the metric, the line of `/decisions` and the row of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "buy",  # machines ordered
    "no_capacity",  # the cloud had none of what was ordered
    "launch_failed",  # the cloud refused the order
    "reactivate",  # a machine on its way out is taken back
    "deactivate",  # a machine gets no more work
    "drain",  # looked at again and still empty: told to go
    "terminate",  # given back to the cloud
    "abandon",  # a drain took too long with tasks running: given up, the agent gets work again
    "give_up",  # terminated because its agent never came or never came back
    "refuse",  # demand that gets no machine, and why
    "notice",  # the cloud announced a machine's end, or that it is at risk
    "gone",  # it ended as announced: the engine is told
    "freeze",  # nothing is removed for now, and why
    "left",  # a machine ended itself: its lease had run out
    "advertises",  # agents of a type have less than was expected of it
    "strange",  # a machine or an agent is not as it should be
    "lead",  # another daemon leads, and how long none did
]


@dataclass(frozen=True, slots=True)
class Decision:
    """`usd_per_hour` is the change it makes (negative when money is saved); `before_usd` and `after_usd` are the cluster's rates.

    `agents` are the engine's ids of `machines` that have one. `planned_usd` is what a purchase was expected to cost an hour.
    Of a purchase that was packed, the last four say of all that its pass packed: what it costs an hour, what it would cost at least, by how
    many per cent more that is at most, and how it was found (`method` is empty for what was not packed).
    """

    at: float
    kind: Kind
    what: str
    reasons: tuple[str, ...]
    pool: str = ""
    offering: str = ""
    count: int = 0
    machines: tuple[str, ...] = ()
    demand: tuple[str, ...] = ()
    usd_per_hour: float = 0.0
    before_usd: float = 0.0
    after_usd: float = 0.0
    token: str = ""
    dry_run: bool = False
    agents: tuple[str, ...] = ()
    policy: str = ""
    planned_usd: float = 0.0
    packed_usd: float = 0.0
    bound_usd: float = 0.0
    gap_percent: float = 0.0
    method: str = ""

    def record(self) -> dict[str, Any]:
        """As a row of the ledger: `kind` is the row's, `decision` the decision's."""
        row = {
            key: value
            for key, value in asdict(self).items()
            if value not in ("", (), 0, 0.0, False)
        }
        row["decision"] = self.kind
        row["kind"] = "decision"
        row["at"] = self.at
        row.setdefault("what", self.what)
        return row


def packing_told(row: Mapping[str, Any]) -> str:
    """How near to the cheapest a purchase's pass packed, for people; empty for a row that tells nothing of it."""
    if not row.get("method"):
        return ""
    usd, bound, gap = (
        float(row.get(name, 0.0)) for name in ("packed_usd", "bound_usd", "gap_percent")
    )
    return f"packed at ${usd:.4f} an hour, at least ${bound:.4f} (gap {gap:g} %, {row['method']})"


def from_record(row: dict[str, Any]) -> Decision:
    """A decision read back from the ledger; what it lacks has its default."""
    known = {name for name in Decision.__slots__ if name in row} - {"kind"}
    values = {
        name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in known
    }
    return Decision(**{"what": "", "reasons": (), **values, "kind": row["decision"]})
