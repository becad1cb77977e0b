"""ViM2, the image backbone of the MambaMixer paper, on the same mixers and kernels as TSM2.

It needs nothing that forecasting does not: neither timm nor torchvision. `tsm2.vision.timm`, which
has to be imported by name, registers the models with timm.
"""

from tsm2.vision.builders import create_vim2, vim2_base, vim2_nano, vim2_small, vim2_tiny
from tsm2.vision.config import ViM2Config
from tsm2.vision.inspection import Selection, inspect, plot_selection
from tsm2.vision.onnx import export_onnx
from tsm2.vision.variants import VARIANTS
from tsm2.vision.vim2 import ViM2

__all__ = [
    "VARIANTS",
    "Selection",
    "ViM2",
    "ViM2Config",
    "create_vim2",
    "export_onnx",
    "inspect",
    "plot_selection",
    "vim2_base",
    "vim2_nano",
    "vim2_small",
    "vim2_tiny",
]
