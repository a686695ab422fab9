"""Pure decisions and models of Patchwave: no clock, no I/O, no SDK.

Everything here is a function of its arguments, so that the planner, the orchestrators and the tests run
exactly the same rules.
"""
