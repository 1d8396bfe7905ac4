"""Shapes and types are checked in every test: jaxtyping annotations of the whole package, by beartype."""

from jaxtyping import install_import_hook

install_import_hook("polyact", "beartype.beartype")
