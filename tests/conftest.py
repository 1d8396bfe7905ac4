"""Shapes and types are checked in every test: jaxtyping annotations of the whole package, by beartype (an int counts as a float)."""

import os

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("NPROC", "3")  # threads of XLA's pool: see polyact.claims.harness.prepare_xla

install_import_hook("polyact", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """A worker compiles more programs than a process has memory maps for."""
    yield
    from polyact.learning.program import release_programs

    release_programs(unless_fewer_maps_than=20_000)


@pytest.fixture(scope="module")
def unoptimised():
    """For tests that compile many programs and run each a few times."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
