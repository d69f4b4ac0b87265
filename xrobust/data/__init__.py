"""Data modules: images in [0, 1] with a held-out validation set."""

from xrobust.data.arrays import Arrays
from xrobust.data.base import ImageDataModule
from xrobust.data.block_mnist import BlockMNIST
from xrobust.data.digits import Digits
from xrobust.data.folder import FolderImages
from xrobust.data.foreground import Foreground
from xrobust.data.loader import EvaluationLoader, TensorLoader, TrainingLoader
from xrobust.data.mix import CutMix, MixUp
from xrobust.data.mnist5k import MNIST5k
from xrobust.data.npz import NpzImages
from xrobust.data.planted_patch import PlantedPatch
from xrobust.data.torchvision_images import TorchvisionImages

__all__ = [
    "Arrays",
    "BlockMNIST",
    "CutMix",
    "Digits",
    "EvaluationLoader",
    "FolderImages",
    "Foreground",
    "ImageDataModule",
    "MNIST5k",
    "MixUp",
    "NpzImages",
    "PlantedPatch",
    "TensorLoader",
    "TorchvisionImages",
    "TrainingLoader",
]
