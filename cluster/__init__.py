"""Mesaform: Mesos clusters on AWS, sized to the work by price and torn down without leaving a cent running."""
