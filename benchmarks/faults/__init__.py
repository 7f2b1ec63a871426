"""Faults against a running cluster on the local target, with recovery times beside their targets.

`python -m benchmarks.faults` raises a cluster in a folder of its own, injects the faults one after
the other, prints a table, and fails if anything was lost, bought twice or left over.
"""
