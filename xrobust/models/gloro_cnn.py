"""The larger convolutional networks of GloRo nets: 4C3F and 6C2F."""

from __future__ import annotations

from xrobust.models.certified_cnn import CertifiedCNN


class CNN4C3F(CertifiedCNN):
    """Conv(32, 3, 1), Conv(32, 4, 2), Conv(64, 3, 1), Conv(64, 4, 2) with padding 1, FC(512), FC(512): MNIST at 1.58.

    The network of Leino et al. 2021. Arguments, shapes and weights as in `CertifiedCNN`.
    """

    convolutions = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2))
    padding = 1
    hidden = (512, 512)
    batch_norm = False


class CNN6C2F(CertifiedCNN):
    """Conv 32, 32, 32 (4×4, stride 2), 64, 64, 64 (4×4, stride 2), else 3×3, padding 1, FC(512): CIFAR-10 at 36/255.

    The network of Leino et al. 2021. Arguments, shapes and weights as in `CertifiedCNN`.
    """

    convolutions = ((32, 3, 1), (32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 3, 1), (64, 4, 2))
    padding = 1
    hidden = (512,)
    batch_norm = False
