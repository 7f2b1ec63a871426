"""What a cluster is doing now: gathered from EC2, the engine, the services, S3 and Terraform, joined by a pure function."""
