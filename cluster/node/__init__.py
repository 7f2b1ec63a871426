"""Programs of every machine: read the machine's role from IMDS and supervise its services."""
