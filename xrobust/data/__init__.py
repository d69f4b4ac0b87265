"""Data modules: images in [0, 1] with a held-out validation set."""

from xrobust.data.arrays import Arrays
from xrobust.data.base import ImageDataModule
from xrobust.data.digits import Digits
from xrobust.data.folder import FolderImages
from xrobust.data.loader import EvaluationLoader, TensorLoader, TrainingLoader
from xrobust.data.mnist5k import MNIST5k
from xrobust.data.npz import NpzImages
from xrobust.data.torchvision_images import TorchvisionImages

__all__ = [
    "Arrays",
    "Digits",
    "EvaluationLoader",
    "FolderImages",
    "ImageDataModule",
    "MNIST5k",
    "NpzImages",
    "TensorLoader",
    "TorchvisionImages",
    "TrainingLoader",
]
