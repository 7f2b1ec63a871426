"""Discrete-event simulation of the planner and of baseline policies on traces of work."""
