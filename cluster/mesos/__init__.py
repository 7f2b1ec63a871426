"""The Mesos v1 protocol: messages, RecordIO, and clients of the scheduler and operator APIs."""
