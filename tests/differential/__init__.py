"""The same calls to a real Apache Mesos and to the embedded engine, and the comparison of answers.

`make differential` runs it with 2,000 generated calls. The tests need `mesos-master` in
`$MESAFORM_TEST_MESOS` (a prefix) and skip where it is not set.
"""
