"""The kinds of AWS resource that a cluster owns: listing, deletion, dependencies and prices.

Each service has a module. A class in it describes one kind and is registered with the kinds that
must be deleted before it (`registry`); `sweep` deletes all that carries a cluster's tag.
"""
