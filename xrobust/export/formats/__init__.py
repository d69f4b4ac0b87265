"""The formats in which a model leaves: one file a format."""

from xrobust.export.formats.base import Format
from xrobust.export.formats.hub import Hub
from xrobust.export.formats.onnx import Onnx
from xrobust.export.formats.pt2 import Pt2
from xrobust.export.formats.safetensors import Safetensors
from xrobust.export.formats.timm import Timm

__all__ = ["Format", "Hub", "Onnx", "Pt2", "Safetensors", "Timm"]
