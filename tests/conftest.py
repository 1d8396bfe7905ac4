"""Shapes and types are checked in every test: jaxtyping annotations of the whole package, by beartype."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

from jaxtyping import install_import_hook

install_import_hook("polyact", "beartype.beartype")
