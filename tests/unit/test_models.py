"""Architectures: sizes, adaptation to the data, normalisation, activations, mistakes."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from xrobust.errors import UserError
from xrobust.models import (
    CNN7,
    DMLarge,
    DMMedium,
    DMSmall,
    FullyConnected,
    LeNet,
    MadryCNN,
    MinMax,
    Normalize,
    PreActResNet,
    ResNet,
    SmallCNN,
    TimmModel,
    TorchvisionModel,
    WideResNet,
    make_activation,
)

CIFAR = {"num_classes": 10, "in_channels": 3, "image_size": 32}
MNIST = {"num_classes": 10, "in_channels": 1, "image_size": 28}
OWN = [SmallCNN, MadryCNN, LeNet, ResNet, PreActResNet, WideResNet, DMSmall, DMMedium, DMLarge, CNN7, FullyConnected]
THIN = {
    ResNet: {"width": 8},
    PreActResNet: {"widths": [8, 8, 16, 16], "stem": 8},
    WideResNet: {"depth": 10, "widen": 1},
    DMLarge: {"width": 0.1},
    CNN7: {"width": 0.1},
    FullyConnected: {"hidden": [20, 20, 20]},
}


def thin(kind: type[nn.Module], **arguments: object) -> nn.Module:
    """The architecture with few channels, where it has an argument for that."""
    return kind(**{**THIN.get(kind, {}), **arguments})


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("kind", "data", "parameters"),
    [
        (ResNet, CIFAR, 11_173_962),
        (PreActResNet, CIFAR, 11_172_170),
        (WideResNet, CIFAR, 36_479_194),
        (LeNet, MNIST, 431_080),
        (MadryCNN, MNIST, 3_274_634),
        (SmallCNN, MNIST, 166_406),
        (DMSmall, CIFAR, 470_918),
        (DMMedium, CIFAR, 1_188_906),
        (DMLarge, CIFAR, 17_190_602),
        (CNN7, CIFAR, 17_192_650),
        (FullyConnected, MNIST, 89_610),
    ],
)
def test_published_sizes(kind, data, parameters):
    assert size(kind(**data)) == parameters


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 28, 10), (3, 32, 7), (2, 17, 3)])
def test_models_adapt_to_the_data(kind, channels, side, classes):
    model = thin(kind, num_classes=classes, in_channels=channels, image_size=side)
    assert model(torch.rand(3, channels, side, side)).shape == (3, classes)


@pytest.mark.parametrize(
    ("kind", "smallest"), [(SmallCNN, 4), (MadryCNN, 4), (LeNet, 16), (ResNet, 8), (WideResNet, 4)]
)
def test_smallest_image_works_and_a_smaller_one_is_refused(kind, smallest):
    data = {"num_classes": 10, "in_channels": 1}
    model = thin(kind, image_size=smallest, **data)
    assert model(torch.rand(2, 1, smallest, smallest)).shape == (2, 10)
    with pytest.raises(UserError, match=rf"image_size.*{smallest}"):
        thin(kind, image_size=smallest - 1, **data)


@pytest.mark.parametrize("kind", OWN)
def test_models_are_symbolically_traceable(kind):
    model = thin(kind, mean=[0.5] * 3, std=[0.2] * 3, **CIFAR).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("kind", OWN)
def test_every_activation_is_a_module_of_its_own(kind):
    model = thin(kind, activation={"name": "softplus", "beta": 10}, **CIFAR)
    calls = []
    activations = [module for module in model.modules() if isinstance(module, nn.Softplus)]
    for module in activations:
        assert module.beta == 10
        module.register_forward_hook(lambda module, *_: calls.append(module))
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    model(torch.rand(2, 3, 32, 32))
    assert len(calls) == len(set(calls)) == len(activations) >= 3


@pytest.mark.parametrize("kind", OWN)
def test_normalisation_is_inside(kind):
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    raw, normalised = thin(kind, **CIFAR).eval(), thin(kind, mean=mean, std=std, **CIFAR).eval()
    raw.load_state_dict({k: v for k, v in normalised.state_dict().items() if "normalize" not in k})
    x = torch.rand(4, 3, 32, 32)
    outside = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalised(x), raw(outside))


def test_normalize_is_the_identity_without_statistics_and_moves_with_the_model_otherwise():
    x = torch.rand(2, 3, 4, 4)
    assert Normalize(None, None, 3)(x) is x
    assert Normalize([0.5], [0.5], 1).double().mean.dtype == torch.float64
    assert set(Normalize([0.5], [0.5], 1).state_dict()) == {"mean", "std"}


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.5], "one number for each of 3 channels"),
        ([0.5] * 3, [0.5, 0.0, 0.5], "above 0"),
        ([0.5] * 3, None, "go together"),
    ],
)
def test_wrong_statistics_are_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        SmallCNN(mean=mean, std=std, **CIFAR)


def test_activation_names_ignore_case_and_underscores():
    assert isinstance(make_activation("relu"), nn.ReLU)
    assert isinstance(make_activation("SiLU"), nn.SiLU)
    assert isinstance(make_activation("leaky_relu"), nn.LeakyReLU)
    assert make_activation({"name": "elu", "alpha": 0.5}).alpha == 0.5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rleu", "did you mean 'relu'"),
        ("quadratic_spline", "known are .*relu.*softplus"),
        ({"beta": 10}, "model.activation=None is not an activation"),
        ({"name": "softplus", "bta": 10}, "does not take .*bta"),
        ("multiheadattention", "does not take"),
        ({"name": "glu", "dim": 1}, "changes the shape"),
    ],
)
def test_what_is_no_activation_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        make_activation(spec)


def test_minmax_sorts_pairs_of_channels():
    x = torch.tensor([[3.0, 1.0, -2.0, 5.0]]).view(1, 4, 1, 1)
    assert MinMax()(x).flatten().tolist() == [1.0, 3.0, -2.0, 5.0]
    flat = torch.randn(5, 6)
    torch.testing.assert_close(MinMax()(flat).norm(dim=1), flat.norm(dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_minmax_is_exact_and_keeps_the_norm_of_gradients(dtype):
    x = torch.randn(50, 4, 3, 3, dtype=dtype)
    x[0] = 1.0  # ties
    x.requires_grad_()
    low, high = torch.minimum(x[:, ::2], x[:, 1::2]), torch.maximum(x[:, ::2], x[:, 1::2])
    out = MinMax()(x)
    assert torch.equal(out, torch.stack([low, high], 2).flatten(1, 2))
    g = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(out, x, g)
    assert torch.equal(gradient[0], g[0])
    torch.testing.assert_close(gradient.flatten(1).sort().values, g.flatten(1).sort().values, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (SmallCNN, {"num_classes": 0}, "model.num_classes must be an integer of at least 1, got 0"),
        (SmallCNN, {"width": 1.5}, "model.width .* 1.5"),
        (WideResNet, {"depth": 27}, "6n \\+ 4 .* 27"),
        (PreActResNet, {"widths": [64, 64]}, "one entry a stage"),
        (ResNet, {"blocks": []}, "model.blocks"),
    ],
)
def test_wrong_hyperparameters_are_refused(kind, wrong, message):
    with pytest.raises(UserError, match=message):
        kind(**{**CIFAR, **wrong})


def test_convolutions_of_residual_networks_start_from_he_normal():
    weight = ResNet(**CIFAR).stages[0].residual.conv1.weight  # fan_out = 64 · 9
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_torchvision_model_takes_unit_images():
    model = TorchvisionModel(name="squeezenet1_1", mean=[0.5] * 3, std=[0.25] * 3, **CIFAR).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), model.network((x - 0.5) / 0.25))
    assert not any(getattr(module, "inplace", False) for module in model.modules())


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
def test_a_pretrained_torchvision_model_is_built_again_without_a_download(name, monkeypatch):
    from torchvision import models

    options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    downloads = []

    def download(*_, **__):
        downloads.append(name)
        return models.get_model(name, **options).state_dict()

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", download)
    arguments = {"name": name, "weights": "DEFAULT", **CIFAR, "num_classes": 1000, "image_size": 64}
    model = TorchvisionModel(**arguments).eval()
    again = TorchvisionModel(**TorchvisionModel.without_download(arguments)).eval()
    again.load_state_dict(model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(x), model(x)) and downloads == [name]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "resnt18"}, "did you mean resnet18"),
        ({"in_channels": 1}, "3 channels"),
        ({"name": "alexnet"}, r"does not accept images of shape \(3, 32, 32\)"),
        ({"weights": "DEFAULT"}, "weights=DEFAULT, num_classes=10.*1000"),
        ({"options": {"depth": 3}}, "options=.*depth"),
    ],
)
def test_torchvision_mistakes_are_explained(wrong, message):
    with pytest.raises(UserError, match=message):
        TorchvisionModel(**{"name": "resnet18", **CIFAR, **wrong})


def test_timm_model_adapts_channels_and_classes_and_trains():
    model = TimmModel(name="test_resnet", num_classes=7, in_channels=1, image_size=28)
    assert model.training and all(module.training for module in model.modules())
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 7)


def test_timm_options_reach_the_builder():
    data = {"name": "vit_tiny_patch16_224", "num_classes": 5, "in_channels": 1, "image_size": 32}
    assert TimmModel(options={"img_size": 32, "depth": 1}, **data)(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(UserError, match="does not accept images of shape"):
        TimmModel(options={"depth": 1}, **data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "resnet_18"}, "did you mean"),
        ({"options": {"depth": 3}}, "options=.*depth"),
        ({"name": "x.y"}, "x.y"),
    ],
)
def test_timm_mistakes_are_explained(wrong, message):
    with pytest.raises(UserError, match=message):
        TimmModel(**{"name": "test_resnet", **CIFAR, **wrong})


def test_importing_the_models_does_not_import_other_libraries():
    heavy = "{'torchvision', 'timm', 'pytorch_lightning', 'hydra', 'omegaconf', 'torchmetrics', 'wandb'}"
    code = f"import sys, xrobust.models; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
