"""Asking a policy server from a robot: numpy, websockets and msgpack, no JAX."""

from polyact.client.client import Client as Client
from polyact.client.client import ServerError as ServerError
from polyact.client.control_loop import ControlLoop as ControlLoop
from polyact.client.control_loop import Counts as Counts
