"""Rules of Apache Mesos for decoded messages, in its words, and the limits of this engine.

Each function returns the problem as a text, or None. The texts of Mesos' own rules are those of
src/common/validation.cpp, src/master/validation.cpp, src/common/resources.cpp and
src/common/roles.cpp. `support` has what Mesos accepts and this engine refuses. Pure; depends on
`mesaform.mesos.messages`.
"""
