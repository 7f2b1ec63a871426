"""Where moto's answers differ from AWS in ways that the product can feel, one module a subject. Applied once, by `apply`."""

from __future__ import annotations

from collections.abc import Callable


def apply(on_new_image: Callable[[str], None]) -> None:
    """Repair moto in this process. `catalogue.prepare` must have run before moto was imported."""
    from mesaform.localcloud.moto_patches import (
        catalogue,
        events,
        fleet,
        network,
        requests,
        states,
        templates,
    )

    network.apply()
    states.apply()
    requests.apply()
    templates.apply()
    fleet.apply()
    events.apply()
    catalogue.apply(on_new_image)
    fleet.Prices.usd_per_hour = staticmethod(catalogue.usd_per_hour)
