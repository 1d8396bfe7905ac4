"""Compiled programs kept on disk between runs, in a user cache folder. Off unless asked for; POLYACT_CACHE=off switches it off for good."""

import os
from pathlib import Path


def folder() -> Path | None:
    """Where compiled programs are kept: $POLYACT_CACHE, or polyact under $XDG_CACHE_HOME or ~/.cache; None when switched off."""
    chosen = os.environ.get("POLYACT_CACHE")
    if chosen is not None and chosen.lower() in ("off", "0", "no", ""):
        return None
    if chosen:
        return Path(chosen) / "programs"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "polyact" / "programs"


def enable() -> Path | None:
    """Keep compiled programs on disk from now on in this process; returns the folder, None when switched off or not writable."""
    where = folder()
    if where is None:
        return None
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(where, os.W_OK):
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(where))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return where
