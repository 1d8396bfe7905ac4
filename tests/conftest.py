"""Shapes and types are checked in every test: jaxtyping annotations of the whole package, by beartype (an int counts as a float)."""

import os

from jaxtyping import install_import_hook

os.environ.setdefault("NPROC", "8")  # threads of XLA's pool: see polyact.claims.harness.more_threads

install_import_hook("polyact", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
