"""The dense CRF: sums over all pairs as reference, and the figures of the authors' program."""

import numpy as np
import pytest
import torch

from voxpool.crf import CRFSettings, dense_crf, exact_crf
from voxpool.errors import UsageError


def pattern():
    """Colours with edges at column 8 and row 6, and scores that follow them loosely."""
    y, x = np.mgrid[:12, :16]
    image = np.stack(
        [
            (37 * y + 11 * x) % 64 + 120 * (x > 7),
            (13 * y + 7 * x) % 48 + 90 * (y > 5),
            (5 * y + 29 * x) % 40 + 60 * (x > 7),
        ]
    )
    scores = np.stack(
        [np.sin(0.9 * y + 0.31 * x * k + k) + 0.8 * (k == 1) * (x > 7) + 0.8 * (k == 2) * (y > 5) for k in range(3)]
    )
    return torch.from_numpy(scores)[None], torch.from_numpy(image)[None].double()


# pydensecrf2 1.1 on the same pattern, bilateral kernel of weight 4: steps, widths, and Q at four pixels
AUTHORS = [
    (
        (1, 6.0, 25.0),
        [
            [0.266666, 0.238453, 0.19434, 0.06175],
            [0.530721, 0.656465, 0.310935, 0.076813],
            [0.202613, 0.105082, 0.494725, 0.861437],
        ],
    ),
    (
        (5, 20.0, 13.0),
        [
            [0.493197, 0.038663, 0.059166, 0.005295],
            [0.287853, 0.942315, 0.203513, 0.007392],
            [0.218951, 0.019022, 0.737321, 0.987313],
        ],
    ),
]


@pytest.mark.parametrize(("settings", "expected"), AUTHORS)
def test_the_lattice_is_that_of_the_authors(settings, expected):
    iterations, position, colour = settings
    config = CRFSettings(spatial_weight=0, position_sigma=position, colour_sigma=colour, iterations=iterations)
    found = dense_crf(*pattern(), config)[0][:, [0, 3, 7, 11], [2, 8, 13, 5]]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("size", [(1, 3, 9, 14), (2, 2, 4, 5, 6)], ids=["2D", "3D"])
def test_the_gaussian_of_places_is_exact(size):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(size, generator=generator, dtype=torch.float64)
    image = torch.rand((size[0], 1, *size[2:]), generator=generator, dtype=torch.float64)
    config = CRFSettings(spatial_weight=3, spatial_sigma=1.5, bilateral_weight=0, iterations=4)
    spacing = (1.0, 0.7, 2.0)[: len(size) - 2]
    torch.testing.assert_close(
        dense_crf(scores, image, config, spacing=spacing),
        exact_crf(scores, image, config, spacing=spacing),
        atol=1e-5,
        rtol=0,
    )


def reference(scores, image, config, spacing):
    """The sums over all pairs once more, pixel by pixel, in NumPy."""
    classes, size = scores.shape[0], scores.shape[1:]
    places = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(size, spacing, strict=True)), indexing="ij"), -1)
    places, colours = places.reshape(-1, len(size)), image.reshape(image.shape[0], -1).T
    unary = scores.reshape(classes, -1).T

    def kernel(i, width, colour_width):
        square = ((places - places[i]) ** 2).sum(1) / (2 * width**2)
        if colour_width:
            square = square + ((colours - colours[i]) ** 2).sum(1) / (2 * colour_width**2)
        return np.exp(-square)

    kernels = [
        (config.spatial_weight, np.stack([kernel(i, config.spatial_sigma, None) for i in range(len(places))])),
        (
            config.bilateral_weight,
            np.stack([kernel(i, config.position_sigma, config.colour_sigma) for i in range(len(places))]),
        ),
    ]
    q = np.exp(unary) / np.exp(unary).sum(1, keepdims=True)
    for _ in range(config.iterations):
        total = unary.copy()
        for weight, matrix in kernels:
            degree = matrix.sum(1)
            total += weight * (matrix / np.sqrt(np.outer(degree, degree))) @ q
        q = np.exp(total - total.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
    return q.T.reshape(scores.shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_all_pairs(dims):
    generator = torch.Generator().manual_seed(1)
    size = (6, 5, 4)[:dims]
    scores = torch.randn((1, 3, *size), generator=generator, dtype=torch.float64)
    image = 50 * torch.rand((1, 2, *size), generator=generator, dtype=torch.float64)
    config = CRFSettings(position_sigma=4, colour_sigma=20, iterations=3)
    spacing = (1.0, 1.5, 0.5)[:dims]
    found = exact_crf(scores, image, config, spacing=spacing)[0]
    np.testing.assert_allclose(found, reference(scores[0].numpy(), image[0].numpy(), config, spacing), atol=1e-12)


@pytest.mark.parametrize("size", [(30, 40), (10, 12, 14)], ids=["2D", "3D"])
def test_on_images_with_plain_parts_the_lattice_gives_the_labels_of_all_pairs(size):
    """Two parts of one colour each, noisy scores: noise goes, the edge stays."""
    generator = torch.Generator().manual_seed(2)
    truth = (torch.arange(size[-1]) >= size[-1] // 2).long().expand(size)
    image = (100.0 * truth + 2 * torch.randn(size, generator=generator)).double()[None, None]
    scores = torch.nn.functional.one_hot(truth, 2).movedim(-1, 0).double()
    scores = (scores + 1.2 * torch.randn((2, *size), generator=generator, dtype=torch.float64))[None]
    config = CRFSettings(position_sigma=15, colour_sigma=20, iterations=5)
    exact, fast = exact_crf(scores, image, config), dense_crf(scores, image, config)
    assert float((exact - fast).abs().max()) < 0.02
    assert (scores.argmax(1)[0] == truth).double().mean() < 0.8
    assert torch.equal(fast.argmax(1)[0], truth)


def test_it_is_differentiable_in_the_scores():
    scores, image = pattern()
    small = scores[..., :4, :5].clone().requires_grad_()
    config = CRFSettings(position_sigma=4, colour_sigma=30, iterations=2)
    assert torch.autograd.gradcheck(lambda s: dense_crf(s, image[..., :4, :5], config), (small,))


def test_what_does_not_belong_together_is_told():
    scores, image = pattern()
    with pytest.raises(UsageError, match="do not belong together"):
        dense_crf(scores, image[..., :-1])
    with pytest.raises(UsageError, match="must be positive"):
        dense_crf(scores, image, CRFSettings(colour_sigma=0))
    with pytest.raises(UsageError, match="at most 20000 pixels"):
        exact_crf(torch.zeros(1, 2, 200, 200), torch.zeros(1, 1, 200, 200))
    with pytest.raises(UsageError, match="widths are too small"):
        dense_crf(scores, 1e6 * image, CRFSettings(colour_sigma=1e-6))
