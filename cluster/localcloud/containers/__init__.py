"""Machines as containers: Debian systems under systemd-nspawn, each with a network of its own.

Everything here needs root. `runner` implements the port `machine_runner`.
"""
