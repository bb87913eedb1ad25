"""Images and label images in, label images out."""

import numpy as np
import pytest
from PIL import Image

from voxpool.errors import InputError, UsageError
from voxpool.io.image import read_image, read_label_image, write_label_image


def test_colours_and_grey(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), colours)
    Image.fromarray(colours[..., 0]).save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png"), np.repeat(colours[..., :1], 3, 2))
    assert read_image(tmp_path / "a.png", (10, 14)).shape == (10, 14, 3)


def test_ids_are_grey_values_or_numbers_of_a_palette(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_label_image(tmp_path / "grey.png", ids)
    write_label_image(tmp_path / "palette.png", ids, tuple((9 * n, 0, 255 - n) for n in range(12)))
    assert Image.open(tmp_path / "palette.png").convert("RGB").getpixel((3, 2)) == (99, 0, 244)
    Image.fromarray(ids.astype(np.uint16) * 1000).save(tmp_path / "wide.png")
    for name, factor in (("grey", 1), ("palette", 1), ("wide", 1000)):
        assert np.array_equal(read_label_image(tmp_path / f"{name}.png"), ids.astype(int) * factor)


def test_what_cannot_be_read_is_told(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="colour image"):
        read_label_image(tmp_path / "colour.png")
    whole = (tmp_path / "colour.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    for name, reason in (("half.png", "no image"), ("text.png", "no image"), ("gone.png", "is not there")):
        with pytest.raises(InputError, match=reason):
            read_image(tmp_path / name)
    with pytest.raises(UsageError, match="ids 0 to 255"):
        write_label_image(tmp_path / "out.png", np.array([[256]]))
    assert not (tmp_path / "out.png").exists()
