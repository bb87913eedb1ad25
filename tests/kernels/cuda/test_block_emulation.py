"""Every kernel of `block_pad.cu` is executed, thread by thread, and gives what the torch path gives."""

import pytest
import torch

from voxpool.kernels import _cuda, block_pad_cupy
from voxpool.ops.block_pad import BlockGrid, block_pad, block_sample


@pytest.fixture(scope="module")
def emulated(emulator, block_cases, tmp_path_factory: pytest.TempPathFactory):
    library = emulator.build(_cuda.source("block_pad.cu"), block_cases.NAMES, tmp_path_factory.mktemp("blocks"))
    return emulator.Emulated(library, block_cases.NAMES)


@pytest.fixture
def kernels(emulated, poisoned: None, monkeypatch: pytest.MonkeyPatch):
    emulated.seed = 0
    monkeypatch.setattr(_cuda, "module", lambda name, names, device: emulated)
    return block_pad_cupy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_results_are_those_of_the_torch_path(block_case, dtype: torch.dtype, kernels, block_cases):
    block_cases.check(kernels, block_case, dtype)


def test_the_order_of_threads_changes_no_bit(kernels, emulated, block_cases):
    case = block_cases.CASES["3D, replicated"]
    first = block_cases.check(kernels, case, torch.float32)
    emulated.seed = 3
    assert all(torch.equal(a, b) for a, b in zip(first, block_cases.check(kernels, case, torch.float32), strict=True))


def test_the_op_takes_them_forward_and_backward(kernels, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(block_pad_cupy, "serves", lambda x: True)
    grid = BlockGrid(torch.tensor([[[True, False, True], [False, True, False]]]))
    x = torch.randn((1, 2, 8, 12), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda image: block_pad(*block_sample(image, grid), grid, [1, 2], replicate=True), (x,)
    )
