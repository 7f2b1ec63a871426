"""The local cloud: an AWS API on this machine, for the target `local`.

An endpoint answers AWS's calls with moto, a hypervisor runs EC2's instances as processes with a
metadata service (IMDSv2), and a registry of faults makes both fail on purpose.
"""
