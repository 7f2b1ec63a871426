"""Mesaform: provisions Mesos clusters on AWS, sizes them by price and removes them completely."""
