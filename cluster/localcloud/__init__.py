"""A local AWS: moto's API, a hypervisor that turns instances into processes, IMDSv2, and a fault switch."""
