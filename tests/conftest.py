"""Shapes and types are checked in every test: jaxtyping annotations of the whole package, by beartype (an int counts as a float)."""

from jaxtyping import install_import_hook

install_import_hook("polyact", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
