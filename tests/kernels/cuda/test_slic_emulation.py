"""Every kernel of `slic.cu` is executed, thread by thread, and gives the labels of the CPU kernels."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from voxpool.errors import UsageError
from voxpool.kernels import _cuda, slic_cupy
from voxpool.supervoxels import slic

slic_module = import_module("voxpool.supervoxels.slic")


@pytest.fixture(scope="module")
def emulated(emulator, slic_cases, tmp_path_factory: pytest.TempPathFactory):
    library = emulator.build(_cuda.source("slic.cu"), slic_cases.NAMES, tmp_path_factory.mktemp("slic"))
    return emulator.Emulated(library, slic_cases.NAMES)


@pytest.fixture
def kernels(emulated, poisoned: None, monkeypatch: pytest.MonkeyPatch):
    emulated.seed = 0
    monkeypatch.setattr(_cuda, "module", lambda name, names, device: emulated)
    return slic_cupy


@pytest.mark.parametrize("seed", range(3))
def test_results_are_those_of_the_cpu_in_any_order_of_threads(slic_case, seed: int, kernels, emulated, slic_cases):
    emulated.seed = seed
    slic_cases.check(kernels, slic_case)


@pytest.fixture
def on_device(kernels, monkeypatch: pytest.MonkeyPatch):
    """Let `slic` take CPU tensors to the emulated kernels."""
    monkeypatch.setattr(slic_module, "_device", lambda image: image.device if isinstance(image, torch.Tensor) else None)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32]
)
@pytest.mark.parametrize("masked", [False, True])
def test_slic_gives_the_same_labels(dtype: torch.dtype, masked: bool, on_device: None):
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand((20, 22, 24), generator=generator) * 200).to(dtype)
    mask = torch.zeros(image.shape, dtype=torch.bool)
    mask[3:17, 2:, :20] = torch.rand((14, 20, 20), generator=generator) < 0.9
    options = {"mask": mask if masked else None, "spacing": (1, 1.5, 0.8), "max_num_iter": 4}
    found = slic(image, 40, **options)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found, slic(image.float().numpy(), 40, **options))


def test_slic_in_two_dimensions_with_channels(on_device: None):
    image = torch.rand((30, 34, 2), generator=torch.Generator().manual_seed(1))
    found = slic(image, 25, channel_axis=-1, spacing=(2, 1))
    np.testing.assert_array_equal(found, slic(image.numpy(), 25, channel_axis=-1, spacing=(2, 1)))


def test_values_that_cannot_be_scaled_are_refused_inside_the_mask_only(on_device: None):
    image = torch.rand((8, 8, 8))
    image[0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(UsageError, match="the image has 2 NaN, infinite or immense voxels inside the mask"):
        slic(image, 8)
    slic(image, 8, mask=image < 2)
    with pytest.raises(UsageError, match="mask is empty"):
        slic(image, 8, mask=torch.zeros(image.shape))


def test_what_32_bits_cannot_count_is_refused(kernels):
    volume = torch.zeros(1).expand(2**11, 2**10, 2**10)
    with pytest.raises(
        UsageError, match=r"less than 2\^31 voxels, .* got shape \(2048, 1024, 1024\): .* image.cpu\(\)"
    ):
        kernels.scale(volume, volume > 0)


def test_labels_that_are_joined_without_atomics_are_reported(run_sanitized, slic_cases, tmp_path: Path) -> None:
    source = _cuda.source("slic.cu")
    right, mistake = "const int before = atomicMin(parents + high, low);", "const int before = parents[high] = low;"
    assert source.count(right) == 1
    source = source.replace(right, mistake)
    done = run_sanitized("slic.cu", source, "thread", tmp_path, "small", "mistaken", names=slic_cases.NAMES)
    line = source[: source.index(mistake)].count("\n") + 1
    assert re.search(rf"SUMMARY: ThreadSanitizer: data race .*kernels\.cu:{line}", done.stderr), done.stderr[:3000]
