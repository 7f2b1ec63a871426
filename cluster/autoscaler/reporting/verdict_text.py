"""Rendering of verdicts for people."""

from __future__ import annotations

from mesaform.autoscaler.planner.verdicts import Refusal, Verdict
from mesaform.autoscaler.reporting.reason_text import listed, render_all


def render_verdict(verdict: Verdict) -> str:
    """A verdict as one line: `2 fit now on i-1 (m5.large), 3 wait for i-2 (m5.large)`."""
    buys_label = "need machines to buy:" if verdict.buys else "need machines to buy"
    parts = [
        f"{count} {label} {listed(names)}".rstrip()
        for count, label, names in (
            (verdict.fits_now, "fit now on" if verdict.fits_on else "fit now", verdict.fits_on),
            (verdict.arriving, "wait for", verdict.waits_for),
            (verdict.buying, buys_label, verdict.buys),
        )
        if count
    ]
    if verdict.unmet:
        parts.append(f"{verdict.unmet} get none: {render_refusal(verdict.refusal)}")
    return ", ".join(parts)


def render_refusal(refusal: Refusal | None) -> str:
    """Why an item gets no machine."""
    return render_all(refusal.reasons) if refusal else "the reason is not known"
