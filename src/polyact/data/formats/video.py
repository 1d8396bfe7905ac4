"""Frames out of video files, decoded for the times asked (needs the extra `video`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from polyact.data.formats.common import reading
from polyact.errors import DataError, need

TOLERANCE = 1e-4  # s, LeRobot's


def decode_frames(
    path: Path, times: Float[np.ndarray, " frames"], feature: str = "video", tolerance: float = TOLERANCE
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames shown at `times` (s from the file's start, in any order), in RGB. Decodes from the key frame before the first.

    tolerance (s): how far a frame's time stamp may lie from the time asked.
    Raises DataError naming file and time where no frame lies there, PolyactError where PyAV is not installed.
    """
    av = need("av", "video", f"decoding '{feature}' (read with videos=False to leave it out)")
    order = np.argsort(times, kind="stable")
    wanted = times[order]
    if not len(wanted):
        raise DataError(f"{path}: no frames asked for")
    found: list[np.ndarray] = []
    with reading(path), av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        container.seek(max(0, int((wanted[0] - tolerance) / stream.time_base)), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.time is None or frame.time < wanted[len(found)] - tolerance:
                continue
            if frame.time > wanted[len(found)] + tolerance:
                break
            image = frame.to_ndarray(format="rgb24")
            while len(found) < len(wanted) and abs(frame.time - wanted[len(found)]) <= tolerance:
                found.append(image)
            if len(found) == len(wanted):
                break
    if len(found) < len(wanted):
        raise DataError(f"{path}: no frame within {tolerance:g} s of {wanted[len(found)]:.6g} s")
    out = np.empty((len(found), *found[0].shape), np.uint8)
    out[order] = np.stack(found)
    return out
