"""Messages: openpi's format bit for bit, and nothing but an error for whatever else comes over the wire."""

import subprocess
import sys

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from serving_examples import wire_pack, wire_unpack

from polyact.client.codec import MOST_MAPS, WireError, packb, unpackb

DTYPES = st.sampled_from(["?", "<i4", ">i8", "u1", "<u2", "<f2", "<f4", ">f8", "<U3", "S2"]).map(np.dtype)
ARRAYS = arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5) | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


def read(frame):
    """What a frame says: its map, or the words of the error."""
    try:
        return unpackb(frame)
    except WireError as error:
        return str(error)


def fine(found):
    return isinstance(found, dict) or ("\n" not in found and len(found) < 500)


def same(one, other):
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(part, other[name]) for name, part in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(MESSAGES)
def test_what_is_packed_is_unpacked_and_is_openpis_format(message):
    assert packb(message) == wire_pack(message)
    assert same(message, unpackb(packb(message)))
    assert same(message, wire_unpack(packb(message)))


@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(-3), np.bool_(True)])
def test_scalars_keep_their_type(value):
    found = unpackb(wire_pack({"x": value}))["x"]
    assert type(found) is type(value)
    assert found == value


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_map_or_an_error(data):
    assert fine(read(data))


@settings(max_examples=300)
@given(MESSAGES, st.data())
def test_a_damaged_message_is_a_map_or_an_error(message, data):
    frame = bytearray(packb(message | {"x": np.zeros((2, 3), "f4")}))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    assert fine(read(bytes(frame[: data.draw(st.integers(0, len(frame)))])))


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {b"__ndarray__": st.just(True) | VALUES},
        optional={
            b"data": st.binary(max_size=16) | VALUES,
            b"dtype": st.sampled_from(["<f4", "O", "V4", "<c8", "|S0", "f4,i4", "(2,)f4", "<f99999", "M8[s]"]) | VALUES,
            b"shape": st.lists(st.integers(-(2**63), 2**64 - 1), max_size=4) | VALUES,
        },
    )
)
def test_any_array_map_is_an_array_of_its_own_bytes_or_an_error(found):
    try:
        array = unpackb(wire_pack({"x": found}))["x"]
    except WireError:
        return
    assert array.nbytes == len(found[b"data"])
    assert array.dtype.kind in "biufSU"


def changed(name, value):
    return wire_pack({"x": {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2], name: value}})


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"", "incomplete input"),
        (packb({"x": np.zeros(3)})[:-1], "incomplete input"),
        (msgpack.packb([1]), "a map of names to values, got list"),
        (msgpack.packb({1: 2}), "map key"),
        (b"\x91" * 5000 + b"\x01", "nested too deeply"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (msgpack.packb({"x": msgpack.ExtType(1, b"")}), "extension 1"),
        (msgpack.packb({"x": [{}] * (MOST_MAPS + 1)}), f"more than {MOST_MAPS} maps"),
        (changed(b"shape", [-2]), "whole numbers >= 0, got [-2]"),
        (changed(b"shape", [2**40, 2**40]), "a huge number bytes, got 8"),
        (changed(b"shape", [3]), "has 12 bytes, got 8"),
        (changed(b"shape", [0, 2**62]), "has 0 bytes, got 8"),
        (changed(b"shape", [1] * 40), "at most 16"),
        (changed(b"dtype", "O8"), "got 'O8'"),
        (changed(b"dtype", "<c8"), "got '<c8'"),
        (changed(b"dtype", "V8"), "got 'V8'"),
        (changed(b"dtype", "<U0"), "entries are empty"),
        (changed(b"dtype", "<f3"), "no dtype '<f3'"),
        (changed(b"data", "text"), "are bytes, got str"),
        (changed(b"further", 1), "exactly the entries"),
        (wire_pack({"x": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}), "300 is no uint8"),
        (wire_pack({"x": {b"__npgeneric__": True, b"data": "a", b"dtype": "<f4"}}), "can't hold a str"),
    ],
)
def test_each_fault_has_its_message(frame, said):
    with pytest.raises(WireError) as caught:
        unpackb(frame)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.array([1j]), np.array([{}], object), np.zeros(1, "i4,f4"), object(), 1 << 70])
def test_what_has_no_place_in_a_message_is_refused(value):
    with pytest.raises(WireError, match="can't be packed"):
        packb({"x": value})


def test_arrays_are_views_that_nobody_can_write_to():
    found = unpackb(packb({"x": np.zeros(3)}))["x"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_the_client_loads_no_jax():
    code = "import sys, polyact.client; print(*sorted({'jax', 'equinox', 'scipy', 'gymnasium', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
