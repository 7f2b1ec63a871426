"""Ports to AWS, one module per port, with the values that cross them.

Calls block; shells make them in threads. Every fault is a `mesaform.common.errors.CloudError`. The
adapters are the modules of `mesaform.aws`; the fakes are in `mesaform.testing`.
"""

from mesaform.aws.ports.control import Control, Heartbeat
from mesaform.aws.ports.fleet import (
    Capacity,
    Fleet,
    LaunchRequest,
    LaunchResult,
    Machine,
    MachineState,
    Offering,
    Template,
)
from mesaform.aws.ports.ledger import Ledger, Row
from mesaform.aws.ports.notices import Message, Notices, ScheduledEvent
from mesaform.aws.ports.price_list import PriceCache, PriceList
from mesaform.aws.ports.spot_feed import Quote, SpotFeed

__all__ = [
    "Capacity",
    "Control",
    "Fleet",
    "Heartbeat",
    "LaunchRequest",
    "LaunchResult",
    "Ledger",
    "Machine",
    "MachineState",
    "Message",
    "Notices",
    "Offering",
    "PriceCache",
    "PriceList",
    "Quote",
    "Row",
    "ScheduledEvent",
    "SpotFeed",
    "Template",
]
