"""The embedded engine: Mesos' master and agent in Python, for one machine, tests and small clusters."""
