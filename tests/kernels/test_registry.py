import importlib.util

import pytest
import torch

from voxpool.errors import UsageError
from voxpool.kernels import _cuda
from voxpool.kernels.registry import BACKENDS, FLOAT_DTYPES, select


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_the_fastest_backend_of_each_device_is_chosen(dtype: torch.dtype) -> None:
    assert select("cpu", dtype).name == "numba"
    assert select("cuda", dtype).name == ("cupy" if _cuda.refusal() is None else "torch")
    assert select(torch.device("mps"), dtype).name == "torch"


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "cupy"])
def test_a_named_backend_is_taken_where_it_fits(name: str) -> None:
    backend = select("cpu", torch.float32, name)
    assert backend is BACKENDS[name]
    kernels = backend.kernels()
    functions = ("plan", "segment_max", "segment_sum", "segment_mean", "unpool", "scatter")
    assert all(callable(getattr(kernels, function)) for function in functions)


def test_without_a_cuda_build_the_refusal_says_what_to_install() -> None:
    assert BACKENDS["cupy"].refusal("cpu", torch.float32) == "runs on cuda, got cpu"
    refused = _cuda._refusal(None, "2.13.0+cpu")
    assert refused == "needs a PyTorch with CUDA, found 2.13.0+cpu; install one as https://pytorch.org says"


@pytest.mark.parametrize("name", ["numba", "ndimage"])
def test_a_named_backend_is_not_replaced_by_another(name: str) -> None:
    with pytest.raises(UsageError, match=f"^no pooling backend fits: {name} runs on cpu, got cuda$"):
        select("cuda", torch.float32, name)


def test_when_none_fits_every_refusal_is_told() -> None:
    with pytest.raises(UsageError) as caught:
        select("cpu", torch.int32)
    for name in ("numba", "torch", "ndimage"):
        assert f"{name} pools float16, bfloat16, float32, float64, got int32" in str(caught.value)
    assert "cupy runs on cuda, got cpu" in str(caught.value)


def test_without_numba_the_processor_falls_back_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxpool.kernels.registry.find_spec", lambda name: None)
    assert select("cpu", torch.float32).name == "torch"
    with pytest.raises(UsageError, match="numba needs the package numba, which is not installed"):
        select("cpu", torch.float32, "numba")


def test_numba_is_looked_for_by_its_real_name() -> None:
    assert importlib.util.find_spec("numba") is not None
    assert BACKENDS["numba"].refusal("cpu", torch.float32) is None
