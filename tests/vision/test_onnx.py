"""The ONNX file against onnxruntime, at sizes beside and above the traced one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tsm2.errors import OutputError
from tsm2.vision import ViM2, ViM2Config
from tsm2.vision.onnx import export_onnx

CONFIG = ViM2Config(
    patch_size=2,
    dims=(16, 32),
    blocks=(1, 0),  # every part once: a scan takes seconds to export
    token_mixers=1,
    channel_expand=(2, 1),
    num_classes=5,
    zero_start=False,
)


@pytest.fixture(scope="module")
def model() -> ViM2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ViM2(CONFIG)


@pytest.mark.filterwarnings("ignore")  # torch's exporter uses parts that torch deprecates
def test_onnxruntime_agrees_at_sizes_above_the_traced_one(model: ViM2, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export_onnx(model.train(), tmp_path / "model.onnx")
    assert model.training
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    generator = torch.Generator().manual_seed(1)
    for shape in ((2, 3, 10, 11), (1, 3, 33, 64), (3, 3, 128, 97)):
        images = torch.randn(shape, generator=generator)
        (scores,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            wanted = model.eval()(images)
        torch.testing.assert_close(torch.from_numpy(scores), wanted, rtol=1e-4, atol=1e-4)


def test_a_missing_exporter_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxscript'] = None\n"
        "from tsm2.errors import ParameterError\n"
        "from tsm2.vision import vim2_nano\nfrom tsm2.vision.onnx import export_onnx\n"
        "try:\n    export_onnx(vim2_nano(), 'model.onnx')\n"
        "except ParameterError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tsm2[onnx]'" in run.stdout


def test_a_folder_that_does_not_exist_is_named_before_the_work(model: ViM2, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(OutputError, match="there is no folder"):
        export_onnx(model, tmp_path / "nowhere" / "model.onnx")
