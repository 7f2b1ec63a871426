"""Observation of a cluster: master, services and cloud APIs, announcements, and the offer probe."""
