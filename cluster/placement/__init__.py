"""What fits where: attributes, constraints and host ports, for scheduler, planner and simulator.

Pure. The services decide with these functions whether an instance takes an offer, and the planner
predicts with the same functions what they will decide (ADR 0043).
"""
