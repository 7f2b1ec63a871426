"""Packing of demand onto nodes and onto the cheapest new machines, with a cost bound. Pure.

`existing` places onto gaps of `free_capacity`; `partition` turns constraints into static choices;
`problem` makes matrices, with `buckets` where sizes are many; `bounds` bounds the price; `patterns`
and `search` fill machines; `columns` solves the linear programme; `integral` makes whole machines
of it; `materialize` assigns their pieces; `solution` is the sequence of all of these.
"""

from mesaform.autoscaler.packing.existing import decreasing_order, place
from mesaform.autoscaler.packing.model import (
    QUICK,
    USUAL,
    Effort,
    Limits,
    NewNode,
    Packing,
    Placement,
    Template,
)
from mesaform.autoscaler.packing.solution import solve

__all__ = [
    "QUICK",
    "USUAL",
    "Effort",
    "Limits",
    "NewNode",
    "Packing",
    "Placement",
    "Template",
    "decreasing_order",
    "place",
    "solve",
]
