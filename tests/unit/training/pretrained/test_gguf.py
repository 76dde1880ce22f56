"""GGUF: the three kinds of tensor against a slow reading, and files that are not what they say."""

import struct

import numpy as np
import pytest

from medmoe.model.errors import CheckpointError
from medmoe.training.pretrained.gguf import GGUFFile
from tests.support.checkpoints.gguf_file import F32, Q4_1, Q8_0, gguf, random_blocks, slow_q4_1, slow_q8_0, text

FIELDS = {"general.architecture": "llama", "count": 7, "rate": 0.5, "words": ["a", "ü"], "kinds": [1, 2], "flag": True}
FLOATS = np.arange(6, dtype="<f4").tobytes()


def test_metadata_and_shapes_come_back() -> None:
    file = GGUFFile(gguf(FIELDS, {"weight": ((2, 3), F32, FLOATS)}))
    assert file.fields == FIELDS
    assert file.read("weight").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("kind", "slow"), [(Q4_1, slow_q4_1), (Q8_0, slow_q8_0)])
def test_quantised_blocks_are_read_as_one_number_at_a_time_would(kind: int, slow: object) -> None:
    raw = random_blocks(kind, weights=3 * 64)
    file = GGUFFile(gguf({}, {"first": ((2, 3), F32, FLOATS), "weight": ((3, 64), kind, raw)}))
    assert callable(slow)
    np.testing.assert_allclose(file.read("weight").ravel(), slow(raw), rtol=1e-6, atol=1e-7)
    assert file.read("weight").shape == (3, 64)


def test_a_file_cut_anywhere_is_refused() -> None:
    whole = gguf(FIELDS, {"weight": ((2, 32), Q8_0, random_blocks(Q8_0, weights=64))})
    for length in range(len(whole) - 28):  # the last bytes only fill the block of 32
        with pytest.raises(CheckpointError):
            GGUFFile(whole[:length])


@pytest.mark.parametrize("promised", [(2**60, 0), (0, 2**60), (2**64 - 1, 2**64 - 1)])
def test_a_header_that_promises_more_than_the_file_holds_costs_nothing(promised: tuple[int, int]) -> None:
    with pytest.raises(CheckpointError, match="entries"):
        GGUFFile(gguf({}, {}, promised=promised) + bytes(64))


def _array(kind: int, count: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("x") + struct.pack("<IIQ", 9, kind, count) + bytes(64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGML" + bytes(64), "not a GGUF"),
        (gguf({}, {}, version=1), "version 1"),
        (_array(8, 2**61), "entries"),
        (_array(10, 2**61), "entries"),
        (_array(9, 1), "nested type 9"),
        (_array(99, 1), "nested type 99"),
        (gguf({"general.alignment": 0}, {}), "alignment"),
        (gguf({"general.alignment": "32"}, {}), "alignment"),
        (gguf({}, {"w": ((1, 1, 1, 1, 1), F32, FLOATS)}), "5 dimensions"),
        (gguf({}, {"w": ((2**40, 2**40), F32, FLOATS)}), "ends before w"),
        (gguf({}, {"w": ((2, 33), Q8_0, FLOATS)}), "whole blocks"),
        (gguf({}, {"w": ((2, 3), 2, FLOATS)}), "type 2; supported: F32, Q4_1, Q8_0"),
        (gguf({}, {"w\x1b[31m": ((2, 3), 2, FLOATS)}), r"w\\x1b"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2) + b"\xff\xff" + bytes(64), "UTF-8"),
    ],
)
def test_a_malformed_file_is_refused_by_what_is_wrong_with_it(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        GGUFFile(content)


def test_a_tensor_that_is_there_twice_is_refused() -> None:
    one = gguf({}, {"v": ((2, 3), F32, FLOATS), "w": ((2, 3), F32, FLOATS)})
    with pytest.raises(CheckpointError, match="w twice"):
        GGUFFile(one.replace(text("v"), text("w")))
