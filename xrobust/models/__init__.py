"""Architectures: images in [0, 1] → logits, with the normalisation inside."""

from xrobust.models.activation import MinMax, make_activation
from xrobust.models.carlini_wagner_cnn import CarliniWagnerCNN
from xrobust.models.certified_cnn import CNN7, DMLarge, DMMedium, DMSmall
from xrobust.models.fully_connected import FullyConnected
from xrobust.models.gloro_cnn import CNN4C3F, CNN6C2F
from xrobust.models.liresnet import LiResNet
from xrobust.models.normalize import Normalize
from xrobust.models.one_lipschitz_cnn import AOLCNN, SLLCNN, CayleyCNN
from xrobust.models.pooled_cnn import LeNet, MadryCNN
from xrobust.models.preact_resnet import PreActResNet, WideResNet
from xrobust.models.resnet import ResNet
from xrobust.models.small_cnn import SmallCNN
from xrobust.models.timm_model import TimmModel
from xrobust.models.torchvision_model import TorchvisionModel

__all__ = [
    "AOLCNN",
    "CNN4C3F",
    "CNN6C2F",
    "CNN7",
    "SLLCNN",
    "CarliniWagnerCNN",
    "CayleyCNN",
    "DMLarge",
    "DMMedium",
    "DMSmall",
    "FullyConnected",
    "LeNet",
    "LiResNet",
    "MadryCNN",
    "MinMax",
    "Normalize",
    "PreActResNet",
    "ResNet",
    "SmallCNN",
    "TimmModel",
    "TorchvisionModel",
    "WideResNet",
    "make_activation",
]
