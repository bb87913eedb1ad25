"""Every kernel of `pool.cu` is executed, thread by thread, and gives what the reference gives."""

import pytest
import torch

from voxpool.errors import UsageError
from voxpool.kernels import _cuda, pool_cupy, pool_plan
from voxpool.kernels.pool_plan import Plan
from voxpool.kernels.registry import FLOAT_DTYPES


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels-last"])
def test_results_are_the_references_in_any_order_of_threads(
    case, channels_last: bool, dtype: torch.dtype, kernels, emulated, cases
) -> None:
    first = cases.run(kernels, case, dtype, channels_last=channels_last, planned=True)
    for seed in (1, 2):
        emulated.seed = seed
        again = cases.run(kernels, case, dtype, channels_last=channels_last, planned=True)
        assert all(torch.equal(cases.bits(a), cases.bits(b)) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", ["3D, ragged tiles", "everything ignored", "no segments", "no voxels"])
def test_a_plan_may_be_missing(name: str, kernels, cases) -> None:
    cases.run(kernels, cases.CASES[name], torch.float32, channels_last=False, planned=False)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_partials_are_joined_in_as_many_steps_as_it_takes(
    dtype: torch.dtype, kernels, cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_plan, "FAN_IN", 2)
    case = cases.CASES["big segments, joined in two steps"]
    segments = torch.zeros((case.samples, case.size), dtype=torch.int32)
    assert len(Plan.of(kernels.plan(segments, 1, case.space)).levels) == 7
    cases.run(kernels, case, dtype, channels_last=False, planned=True)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels-last"])
def test_sums_of_any_numbers_are_accurate(channels_last: bool, kernels) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 2, 30_000), generator=generator)
    segments = torch.zeros((1, 30_000), dtype=torch.int32)
    segments[:, 20_000:] = 1
    laid_out = x.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else x
    for dtype, accuracy in ((torch.float32, 2e-7), (torch.float64, 1e-15)):
        sums = kernels.segment_sum(laid_out.to(dtype), segments, 2, [])
        exact = torch.stack([x[..., :20_000].double().sum(-1), x[..., 20_000:].double().sum(-1)], dim=-1)
        scale = torch.stack([x[..., :20_000].abs().sum(-1), x[..., 20_000:].abs().sum(-1)], dim=-1)
        assert ((sums - exact).abs() <= accuracy * scale).all()


def test_addresses_that_are_no_multiple_of_16_are_served(kernels) -> None:
    pooled = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    segments = torch.tensor([[9, 0, 1, 1, 0, -1, 0, 1, 1]], dtype=torch.int32)[:, 1:]
    base = torch.arange(17.0)[1:].reshape(1, 2, 8)
    expected = base + torch.tensor([[[1, 2, 2, 1, 0, 1, 2, 2], [3, 4, 4, 3, 0, 3, 4, 4]]])
    assert base.data_ptr() % 16
    assert torch.equal(kernels.unpool(pooled, segments.contiguous(), base, False), expected)
    shifted = torch.arange(33.0)[1:].reshape(1, 8, 4)
    out = kernels.unpool(torch.ones((1, 4, 2)), segments.contiguous(), shifted.transpose(1, 2), True)
    assert torch.equal(out, shifted.transpose(1, 2) + (segments >= 0))


def test_positions_beyond_the_map_are_left_out_of_the_gradient(kernels) -> None:
    out = kernels.scatter(torch.ones((1, 1, 3)), torch.tensor([[[5, 2, -1]]]), 5, False)
    assert out.tolist() == [[[0, 0, 1, 0, 0]]]


def test_more_voxels_than_32_bits_count_are_refused(kernels) -> None:
    segments = torch.zeros((1, 1), dtype=torch.int32).expand(2, 2**30)
    with pytest.raises(UsageError, match="counts voxels and segments in 32 bits, got 2147483648"):
        kernels.unpool(torch.zeros((2, 1, 1)), segments, None, False)


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("if (inside && k > top)", "if (inside && k >= top)"),
        ("(k == top && where < at)", "(k == top && where > at)"),
        ("if (f != f) return 0xffffffffu;", ""),
        ("__float_as_int(f + 0.f)", "__float_as_int(f)"),
        ("top == most ? at : NOWHERE", "at"),
        ("unsigned(id.at[j]) < unsigned(K)", "id.at[j] >= 0 && id.at[j] <= K"),
        ("if (at < 0 || at >= P) return;", "if (at < 1) return;"),
        ("if (i >= packs) return;", "if (i + 1 >= packs) return;"),
        ("unsigned(p - lo) < unsigned(hi - lo)", "p >= lo && p <= hi"),
        ("for (int d = 16; d >= width; d >>= 1) value", "for (int d = 8; d >= width; d >>= 1) value"),
    ],
)
def test_mistakes_in_the_kernels_are_found(
    right: str, mistake: str, mutate, emulator, cases, poisoned: None, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pool_cupy.kernel_names(torch.float32)
    wrong = emulator.Emulated(emulator.build(mutate(right, mistake), names, tmp_path, optimise="-O0"), names)
    monkeypatch.setattr(_cuda, "module", lambda name, names, device: wrong)

    def run() -> None:
        for name in ("3D, ragged tiles", "ids of no segment"):
            for channels_last in (False, True):
                cases.run(pool_cupy, cases.CASES[name], torch.float32, channels_last=channels_last, planned=True)

    with pytest.raises(AssertionError):
        run()
