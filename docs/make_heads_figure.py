"""Draw the picture of synthetic heads: one label map, many heads and contrasts.

Run from the repository root with a folder of whole-head label maps:

    python docs/make_heads_figure.py MAPS
"""

import sys
from pathlib import Path

import numpy as np
from make_figure import COLOURS, png

from voxpool.data.head_labels import CONVENTIONS
from voxpool.data.synthesis import SynthesisConfig, draw_image, draw_structures, read_head_map

FIGURE = Path(__file__).resolve().parent / "images" / "synthetic-heads.png"
COLUMNS, ROWS = 6, 2
SEED = 4
CONFIG = SynthesisConfig(voxel=1)


def main() -> None:
    """Write the picture: in each row one head, its labels first, then in other contrasts."""
    maps = sorted(Path(sys.argv[1]).glob("*.nii.gz"))
    rows = []
    for row in range(ROWS):
        structures = draw_structures(read_head_map(maps[row]), CONFIG, SEED + row)
        samples = [draw_image(structures, CONFIG, SEED + 10 * row + column) for column in range(1, COLUMNS)]
        whole = max(samples, key=lambda sample: int((sample.labels > 0).sum()))
        merged = np.array(CONVENTIONS["all-csf"])[_slice(whole.labels.numpy())]
        images = [_slice(sample.image.numpy()) for sample in samples]
        grey = [
            np.repeat(255 * np.clip(image / np.percentile(image, 99.5), 0, 1)[..., None], 3, -1) for image in images
        ]
        rows.append(np.concatenate([COLOURS[merged].astype(float), *grey], axis=1))
    FIGURE.write_bytes(png(np.concatenate(rows).astype(np.uint8)))


def _slice(array: np.ndarray) -> np.ndarray:
    """The middle axial slice: anterior is up and the patient's right is on the left."""
    return array[:, :, array.shape[2] // 2].T[::-1, ::-1]


if __name__ == "__main__":
    main()
