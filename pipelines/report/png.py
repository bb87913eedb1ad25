"""PNG files from small arrays, so that the report needs no imaging library."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def grey_png(image: np.ndarray) -> bytes:
    """Encode a grey image.

    Args:
        image: uint8 of shape (rows, columns).

    Returns:
        The file's bytes.
    """
    # The row filters help smooth images and hurt flat ones, so the smallest of three wins.
    left = np.diff(image, axis=1, prepend=np.uint8(0))
    above = np.diff(image, axis=0, prepend=np.zeros((1, image.shape[1]), np.uint8))
    bodies = [_compress(rows, kind) for kind, rows in enumerate((image, left, above))]
    return _png(image, min(bodies, key=len), colour_type=0)


def palette_png(indices: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode an image of a few colours on a transparent ground.

    Args:
        indices: uint8 of shape (rows, columns): 0 is transparent, i is `colours[i - 1]`.
        colours: Red, green and blue of each colour.

    Returns:
        The file's bytes.
    """
    palette = bytes(3) + b"".join(bytes(colour) for colour in colours)
    chunks = _chunk(b"PLTE", palette) + _chunk(b"tRNS", b"\0")
    return _png(indices, _compress(indices, 0), colour_type=3, extra=chunks)


def _compress(rows: np.ndarray, filter_kind: int) -> bytes:
    return zlib.compress(np.insert(rows, 0, filter_kind, axis=1).tobytes(), 9)


def _png(image: np.ndarray, body: bytes, *, colour_type: int, extra: bytes = b"") -> bytes:
    rows, columns = image.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
