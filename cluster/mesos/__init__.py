"""The Mesos v1 protocol as data and as clients: messages, RecordIO, scheduler and operator clients, leader detection."""
