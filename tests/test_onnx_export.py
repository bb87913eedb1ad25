"""A network as ONNX: the same scores in another runtime, with standard operations alone."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.test_model_package import INFO
from voxpool.errors import UsageError
from voxpool.model_package import load_package
from voxpool.nets import HEADS, create_net
from voxpool.onnx_export import METADATA, export_onnx

SIZE = (16, 24, 16)
MOST = 50  # more than there are


def _net(name: str, head: str) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"reduction": 8} if name == "voxresnet" else {}
    net = create_net(name, 1, 4, head=head, **options)
    for weights in net.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.2)  # a head that says something
    return net.eval()


@pytest.mark.parametrize(("name", "head"), [("segresnet", "base"), *(("voxresnet", head) for head in ("base", *HEADS))])
def test_another_runtime_gives_the_same_scores(name: str, head: str, tmp_path: Path) -> None:
    net, path = _net(name, head), tmp_path / "model.onnx"
    export_onnx(net, INFO, path, size=SIZE, num_segments=None if head == "base" else MOST)
    image = torch.randn(1, 1, *SIZE)
    inputs = {"image": image}
    if head != "base":
        # some voxels outside, some ids unused
        inputs["segments"] = torch.randint(-1, 40, (1, *SIZE))
    if head == "v3nested":
        inputs["parents"] = torch.where(torch.arange(MOST) < 40, torch.arange(MOST) // 5, -1)[None]
    more = {"parents": inputs["parents"]} if "parents" in inputs else {}
    with torch.no_grad():
        wanted = net(image) if head == "base" else net(image, inputs["segments"], MOST, **more)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["scores"], {key: tensor.numpy() for key, tensor in inputs.items()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5 * wanted.abs().max())
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(said[METADATA])["label_names"] == {str(key): text for key, text in INFO.label_names.items()}


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match=r"multiple of 2 voxels per axis, got \(16, 21, 16\)"):
        export_onnx(_net("voxresnet", "base"), INFO, path, size=(16, 21, 16))
    with pytest.raises(UsageError, match="needs the most supervoxels"):
        export_onnx(_net("voxresnet", "v3"), INFO, path, size=SIZE)
    guided, info = load_package("bundled")
    with pytest.raises(UsageError, match="two stages"):
        export_onnx(guided, info, path, size=(32, 32, 32), num_segments=10)
    assert not path.exists()
