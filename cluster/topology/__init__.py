"""Names, addresses, user data, IAM documents and event rules of a cluster: pure functions."""
