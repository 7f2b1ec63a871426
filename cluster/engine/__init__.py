"""The embedded engine: Mesos' master and agent in Python.

It is meant for one machine, for tests and for small clusters.
"""
