"""Measure the deflated or LZMA streams of strips and tiles.

libtiff reads a stream until its rows are full. Zeros in place of codes are often codes too: the end of the stream and
its checksum tell what was written.
"""

import lzma
import zlib

_LZMA = 34925
COMPRESSIONS = (8, 32946, _LZMA)
_LARGEST_DICTIONARY = 2**27
_PIECE = 2**14


def measure(coded: bytes, compression: int, *, most: int) -> tuple[int, bool]:
    """Return how many bytes a stream holds, counted until they exceed `most`, and whether it is whole.

    0 and False for one that is damaged.
    """
    try:
        return _lzma(coded, most) if compression == _LZMA else _deflated(coded, most)
    except (zlib.error, lzma.LZMAError):
        return 0, False


def _deflated(coded: bytes, most: int) -> tuple[int, bool]:
    inflating, size = zlib.decompressobj(), 0
    for at in range(0, len(coded), _PIECE):
        size += len(inflating.decompress(coded[at : at + _PIECE]))
        if inflating.eof or size > most:
            break
    return size, inflating.eof


def _lzma(coded: bytes, most: int) -> tuple[int, bool]:
    inflating, size = lzma.LZMADecompressor(memlimit=_LARGEST_DICTIONARY), 0
    while not inflating.eof and size <= most:
        piece = inflating.decompress(coded if inflating.needs_input else b"", _PIECE)
        if not piece and inflating.needs_input:
            break
        coded, size = b"", size + len(piece)
    return size, inflating.eof
