"""Names, addresses, ports, user data, IAM documents and event rules of a cluster.

Pure functions of the cluster's spec, shared by stacks, images, nodes, the autoscaler and teardown,
so that each name and number is defined once. `names`, `ports`, `zookeeper`, `capacity` and
`user_data` do not import pydantic at run time: the programs of a machine use them and stay small.
"""
