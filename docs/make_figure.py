"""Draw the README's picture from the sample cohort: T1, supervoxel borders and labels of one slice.

Run from the repository root:

    python docs/make_figure.py
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxpool.data.foreground import foreground_mask
from voxpool.io import read_labels, read_volume
from voxpool.supervoxels import slic

ROOT = Path(__file__).resolve().parents[1]
CASE = ROOT / "sample_data" / "cohort" / "sub-01" / "sub-01"
FIGURE = ROOT / "docs" / "images" / "sub-01.png"
N_SEGMENTS = 2000
HEIGHT = 0.55  # of the brain, from the lowest slice
ENLARGE = 5
GAP = 10  # pixels between panels
BORDER = np.array([255, 176, 0])
# Okabe and Ito's palette, which colour-blind readers tell apart: CSF, GM, WM.
COLOURS = np.array([[0, 0, 0], [86, 180, 233], [230, 159, 0], [240, 228, 66]])


def main() -> None:
    """Write the picture."""
    volume = read_volume(f"{CASE}_t1.nii.gz")
    labels = read_labels(f"{CASE}_labels.nii.gz")
    segments = slic(volume.array, N_SEGMENTS, spacing=volume.geometry.spacing, mask=foreground_mask(volume.array))
    grey, ids, classes = (_slice(volume.geometry.to_ras(a)) for a in (volume.array, segments, labels.array))
    grey = np.clip(grey / np.percentile(grey, 99.5), 0, 1)
    anatomy = np.repeat(255 * grey[..., None], 3, axis=-1)
    borders = np.where(_borders(ids)[..., None], BORDER, anatomy)
    painted = np.where(classes[..., None] > 0, 0.45 * anatomy + 0.55 * COLOURS[classes], anatomy)
    gap = np.full((anatomy.shape[0], GAP, 3), 255.0)
    picture = np.concatenate([anatomy, gap, borders, gap, painted], axis=1)
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_bytes(png(picture.astype(np.uint8)))
    print(f"{FIGURE.relative_to(ROOT)}: {N_SEGMENTS} supervoxels asked for, {segments.max() + 1} made")  # noqa: T201


def _slice(ras: NDArray) -> NDArray:
    """An axial slice, enlarged: anterior is up and the patient's right is on the left."""
    plane = ras[:, :, int(HEIGHT * ras.shape[2])].T[::-1, ::-1]
    return np.kron(plane, np.ones((ENLARGE, ENLARGE), plane.dtype))


def _borders(ids: NDArray) -> NDArray:
    """Where a pixel's right or lower neighbour belongs to another supervoxel."""
    edge = np.zeros(ids.shape, bool)
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    return edge


def png(picture: NDArray) -> bytes:
    """Encode (rows, columns, 3) uint8; the report's encoder knows grey and palettes only."""
    rows, columns, _ = picture.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    body = zlib.compress(np.insert(picture.reshape(rows, -1), 0, 0, axis=1).tobytes(), 9)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


if __name__ == "__main__":
    main()
