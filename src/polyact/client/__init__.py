"""Asking a policy server from a robot: numpy, websockets and msgpack, no JAX."""
