"""A policy as a service: one process that answers many robots in time, and refuses what it should."""
