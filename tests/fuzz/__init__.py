"""Fuzzing: inputs derived from the typed structures, sent to a small cluster of real processes.

`make test` runs a minute of it, `make fuzz` an hour. docs/adr/0031-fuzzing.md states the reasons.
"""
