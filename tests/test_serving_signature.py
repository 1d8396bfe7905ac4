"""Requests are checked against the metadata before a policy sees them: each fault has its message."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polyact.errors import PolyactError
from polyact.serving.requests import read_request
from polyact.serving.signature import Signature
from polyact.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

STATE = "observation/state"
VECTOR = Signature(Box(-1, 1, (3,)))
DROID = Dict(
    {
        "observation/image": Box(0, 255, (2, 2, 3), np.uint8),
        "observation/joint_position": Box(-9, 9, (7,)),
        "prompted": Discrete(3, 1),
    }
)
ACTION = Box(-1, 1, (2,))


def read(message, space=VECTOR, action=ACTION, horizon=4):
    return read_request(message, space if isinstance(space, Signature) else Signature(space), action, horizon)


def refused(message, *arguments, **options):
    with pytest.raises(PolyactError) as caught:
        read(message, *arguments, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


def test_a_state_goes_by_the_names_of_three_communities():
    for name in (STATE, "state", "observation.state"):
        (array,) = read({name: np.zeros(3, "f4")}).observation
        np.testing.assert_array_equal(array, np.zeros(3))
    assert "mean the same" in refused({STATE: np.zeros(3), "state": np.zeros(3)})


def test_parts_of_a_dictionary_are_read_by_name_and_rebuilt():
    signature = Signature(DROID)
    message = {
        "prompted": np.int64(3),
        "observation/joint_position": [0.5] * 7,
        "observation/image": np.full((2, 2, 3), 9, np.uint8),
    }
    found = signature.observation(read(message, signature).observation)
    assert {name: (part.shape, part.dtype.name) for name, part in found.items()} == {
        "observation/image": ((2, 2, 3), "uint8"),
        "observation/joint_position": ((7,), "float32"),
        "prompted": ((), "int32"),
    }
    assert found["prompted"] == 3


def test_parts_may_be_maps_and_lists_themselves():
    aloha = Dict({"state": Box(-1, 1, (2,)), "images": Dict({"cam_high": Box(0, 1, (1,)), "cam_low": Box(0, 1, (1,))})})
    signature = Signature(Dict({"aloha": aloha, "pair": Tuple((MultiBinary(2), MultiDiscrete((2, 3))))}))
    images = {"cam_low": np.zeros(1), "cam_high": np.ones(1)}
    message = {"pair": [np.array([0, 1]), np.array([1, 2])], "aloha": {"state": np.zeros(2), "images": images}}
    found = signature.observation(read(message, signature).observation)
    assert found["aloha"]["images"]["cam_high"] == 1
    np.testing.assert_array_equal(found["pair"][1], [1, 2])
    assert "'aloha/images/cam_low' is missing" in refused(
        message | {"aloha": {"state": np.zeros(2), "images": {"cam_high": np.ones(1)}}}, signature
    )
    assert "has no part 'cam_wrist'" in refused(
        message | {"aloha": {"state": np.zeros(2), "images": images | {"cam_wrist": np.ones(1)}}}, signature
    )
    assert "'aloha' is a map of" in refused(message | {"aloha": 3}, signature)
    assert "'pair' is a list of 2 parts, got a list of 1" in refused(message | {"pair": [1]}, signature)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros(4), "has shape [4], expected [3]"),
        (np.zeros((1, 3)), "has shape [1, 3], expected [3]"),
        (np.zeros((3, 0)), "has shape [3, 0], expected [3]"),
        (np.array([0, np.nan, 0]), "is not finite"),
        (np.array([0, np.inf, 0]), "is not finite"),
        (np.array([0, 1e300, 0]), "is not finite"),
        (np.array(["a", "b", "c"]), "has dtype"),
        ("abc", "is an array of float32, got str"),
        (None, "is an array of float32, got NoneType"),
        ({}, "is an array of float32, got dict"),
        ([[1], [2, 3]], "is a ragged list"),
        ([1, "a", 2], "has dtype"),
        ([None] * 3, "has dtype object"),
    ],
)
def test_each_fault_of_an_array_has_its_message(value, said):
    assert said in refused({STATE: value})


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (Box(0, 255, (2,), np.uint8), np.array([0.5, 1.0]), "has dtype float64, expected uint8"),
        (Box(0, 255, (2,), np.uint8), np.array([0, 256]), "outside 0 .. 255"),
        (Box(0, 255, (2,), np.uint8), np.array([-1, 5]), "outside 0 .. 255"),
        (Discrete(3, 1), np.int32(0), "outside 1 .. 3"),
        (Discrete(3, 1), 4, "outside 1 .. 3"),
        (MultiDiscrete((2, 3)), np.array([1, 3]), "outside 0 .. [1, 2]"),
        (MultiBinary(2), np.array([0, 2]), "outside 0 .. 1"),
    ],
)
def test_whole_numbers_lie_in_their_range(space, value, said):
    assert said in refused({STATE: value}, space)


def test_names_are_those_of_the_metadata():
    assert "'observation/state' is missing" in refused({})
    assert "did you mean 'observation/state'" in refused({"observation/stat": np.zeros(3)})
    assert "unknown name 'b'state''" in refused({STATE: np.zeros(3), b"state": 1})
    assert read({STATE: np.zeros(3), "prompt": "pick up the cup"}).timestep is None
    assert "'prompt' is a text" in refused({STATE: np.zeros(3), "prompt": 5})
    with pytest.raises(PolyactError, match="can't be served"):
        Signature(Dict({"prompt": Text(50)}))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("timestep", -1, "whole number in 0"),
        ("timestep", 1.5, "whole number in 0"),
        ("timestep", True, "whole number in 0"),
        ("timestep", 2**80, "whole number in 0"),
        ("timestep", "5", "whole number in 0"),
        ("timestamp", float("nan"), "finite number"),
        ("timestamp", 10**400, "finite number"),
        ("timestamp", [], "finite number"),
        ("inference_delay", 5, "in 0 .. 4"),
        ("reset", 1, "true or false"),
        ("seed", 3, "needs 'reset'"),
        ("prev_chunk", np.zeros((5, 2)), "an array of 1 to 4 actions"),
        ("prev_chunk", np.zeros((0, 2)), "an array of 1 to 4 actions"),
        ("prev_chunk", np.zeros((2, 3)), "has shape [3], expected [2]"),
        ("prev_chunk", np.full((2, 2), np.nan), "'prev_chunk' is not finite"),
        ("prev_chunk", [[0, 0]], "an array of 1 to 4 actions"),
    ],
)
def test_each_fault_of_an_optional_word_has_its_message(name, value, said):
    assert said in refused({STATE: np.zeros(3), name: value})


def test_optional_words_are_read():
    request = read(
        {
            STATE: np.zeros(3),
            "timestep": np.int64(7),
            "timestamp": np.float32(0.5),
            "reset": np.bool_(True),
            "seed": 4,
            "inference_delay": 2,
            "prev_chunk": np.ones((3, 2)),
        }
    )
    assert (request.timestep, request.timestamp, request.reset, request.seed, request.inference_delay) == (7, 0.5, True, 4, 2)
    assert request.prev_chunk is not None
    assert request.prev_chunk.shape == (3, 2)
    assert "has only 1 actions left" in refused({STATE: np.zeros(3), "inference_delay": 2, "prev_chunk": np.ones((1, 2))})


@given(
    st.dictionaries(
        st.sampled_from([STATE, "timestep", "timestamp", "reset", "seed", "prev_chunk", "inference_delay", "prompt"])
        | st.text(max_size=3),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | arrays.arrays(
            st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), arrays.array_shapes(min_dims=0, max_dims=2, max_side=4)
        ),
        max_size=4,
    )
)
def test_whatever_is_sent_is_a_good_observation_or_an_error(message):
    try:
        request = read(message)
    except PolyactError:
        return
    (array,) = request.observation
    assert array.shape == (3,)
    assert array.dtype == np.float32
    assert np.isfinite(array).all()
