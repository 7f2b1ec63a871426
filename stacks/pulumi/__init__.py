"""The topology of `mesaform_stacks` as a Pulumi program, installed as `mesaform[pulumi]`."""
