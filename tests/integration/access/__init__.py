"""Access control across programs: SSM, masters' copies, ports and the command line."""
