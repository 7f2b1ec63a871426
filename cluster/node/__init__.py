"""What runs on every machine: reads its role from IMDS and supervises that role's services."""
