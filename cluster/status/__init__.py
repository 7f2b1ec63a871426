"""State of a running cluster: read from EC2, engine, services, S3 and Terraform, then joined."""
