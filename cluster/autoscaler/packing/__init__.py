"""Packing of demand onto nodes and onto the cheapest new machines, with a cost bound. Pure.

`existing` places onto gaps; `parts` turns constraints into static choices; `problem` makes
matrices, with `buckets` where sizes are many; `cuts` bounds the price; `loads` fills machines and
`search` looks for the best; `columns` solves the linear programme; `whole` makes whole machines of
it; `realise` gives them their pieces; `answer` is all of it.
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
from mesaform.autoscaler.packing.solution import pack, solve

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
    "pack",
    "place",
    "solve",
]
