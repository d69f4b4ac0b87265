"""Attributions from inside the network: class activation maps, FullGrad, attention rollout."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from xrobust.attributions import (
    AttentionRollout,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
)
from xrobust.attributions.attention_rollout import attention
from xrobust.attributions.class_activation import last_feature_map
from xrobust.attributions.full_grad import full_gradient
from xrobust.errors import UserError
from xrobust.models import LeNet, MadryCNN, PreActResNet, ResNet, SmallCNN

SIZE = {"num_classes": 5, "in_channels": 3, "image_size": 16}
RESNET = {**SIZE, "width": 4, "blocks": (1, 1)}


def images(count: int = 6, height: int = 16, width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64)
    return x, torch.randint(5, (count,), generator=generator)


def transformer(**options: int) -> VisionTransformer:
    """torchvision's, with a head that is not zero."""
    shape = {"image_size": 16, "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    model = VisionTransformer(**{**shape, **options}, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.double().eval()


def channel_sum(attribution: Tensor) -> Tensor:
    assert all(torch.equal(attribution[:, 0], attribution[:, c]) for c in range(attribution.shape[1]))
    return attribution.sum(1)


class TestGradCAM:
    @pytest.fixture
    def case(self):
        """A layer of two maps that is pooled into linear logits: ∂s/∂A is known."""
        model = nn.Sequential(nn.Conv2d(3, 2, 2, stride=2), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(2, 5))
        model, (x, y) = model.double(), images()
        features = model[1](model[0](x)).detach()
        return model, x, y, features, (model[4].weight.detach()[y] / 64)[:, :, None, None].expand_as(features)

    def test_by_hand(self, case):
        model, x, y, features, gradients = case
        coarse = (gradients.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
        expected = F.interpolate(coarse, (16, 16), mode="bilinear")[:, 0]
        torch.testing.assert_close(channel_sum(GradCAM()(model, x, y)), expected)
        assert (expected > 0).any()

    def test_plus_plus_by_hand(self, case):
        model, x, y, features, g = case
        alpha = g**2 / (2 * g**2 + g**3 * features.sum((2, 3), keepdim=True))
        coarse = ((alpha * g.relu()).sum((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
        expected = F.interpolate(coarse, (16, 16), mode="bilinear")[:, 0]
        torch.testing.assert_close(channel_sum(GradCAMPlusPlus()(model, x, y)), expected)

    @pytest.mark.parametrize("layer", ["layers.activation1", "layers.conv2", "layers.pool2"])
    def test_equals_captum(self, layer):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = MadryCNN(**SIZE).double(), images()
        coarse = captum.LayerGradCam(model, model.get_submodule(layer)).attribute(x, y, relu_attributions=True)
        expected = captum.LayerAttribution.interpolate(coarse, (16, 16), "bilinear").detach()
        torch.testing.assert_close(channel_sum(GradCAM(layer=layer)(model, x, y)), expected[:, 0])

    @pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
    def test_guided_equals_captum(self):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = MadryCNN(**SIZE).double(), images()
        theirs = captum.GuidedGradCam(model, model.layers.activation2)
        expected = theirs.attribute(x.clone().requires_grad_(), y, interpolate_mode="bilinear").detach()
        torch.testing.assert_close(GuidedGradCAM()(model, x, y), expected)

    def test_guided_is_the_product_of_the_two(self):
        model, (x, y) = ResNet(**RESNET).double(), images()
        expected = GuidedBackprop()(model, x, y) * GradCAM()(model, x, y).sum(1, keepdim=True)
        torch.testing.assert_close(GuidedGradCAM()(model, x, y), expected)

    @pytest.mark.parametrize(
        ("model", "layer"),
        [
            (LeNet(**SIZE), "layers.activation2"),  # what comes after it is one pixel
            (MadryCNN(**SIZE), "layers.activation2"),  # not the pooling after it
            (SmallCNN(**SIZE), "layers.activation2"),
            (ResNet(**RESNET), "stages"),
            (PreActResNet(**SIZE, blocks=(1, 1), widths=(4, 8), stem=4), "activation"),
            (nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2)), nn.Flatten(), nn.Linear(98, 5)), "0.0"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_the_layer_is_found(self, model, layer):
        assert last_feature_map(model.double().eval(), images()[0], "layer") == layer

    def test_tokens_are_a_map_if_they_fit_the_image(self):
        model, (x, y) = transformer(), images()
        layer = "encoder.layers.encoder_layer_1.ln_1"
        found = channel_sum(GradCAM(layer=layer)(model, x, y))
        kept = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
        model(x)[range(6), y].sum().backward(inputs=[kept[0].retain_grad() or kept[0]])
        handle.remove()
        patches, gradients = kept[0][:, 1:], kept[0].grad[:, 1:]  # the class token is left out
        coarse = (gradients.mean(1, keepdim=True) * patches).sum(2).relu().view(6, 1, 4, 4)
        torch.testing.assert_close(found, F.interpolate(coarse, (16, 16), mode="bilinear")[:, 0].detach())

    @pytest.mark.parametrize(
        ("model", "layer", "message"),
        [
            (transformer(), None, "GradCAM.layer must name a module"),
            (nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).double(), None, "GradCAM.layer must name a module"),
            (SmallCNN(**SIZE).double(), "layers.conv3", "no layer 'layers.conv3', the nearest are 'layers.conv"),
            (SmallCNN(**SIZE).double(), "layers.linear1", r"puts out \(6, 100\), which is no feature map"),
            (ResNet(**RESNET).double(), "pool", r"puts out \(6, 8, 1, 1\), which is no feature map"),
            (transformer(), "encoder.layers.encoder_layer_1.self_attention", "puts out tuple, not one tensor"),
            (transformer(), "encoder.layers.encoder_layer_1.self_attention.out_proj", "not used in the forward pass"),
        ],
    )
    def test_a_layer_without_a_map_is_refused(self, model, layer, message):
        x, y = images()
        with pytest.raises(UserError, match=message):
            GradCAM(layer=layer)(model, x, y)

    def test_the_refusal_names_the_method_that_was_asked(self):
        with pytest.raises(UserError, match=r"^GuidedGradCAM.layer='layers.linear1'"):
            GuidedGradCAM(layer="layers.linear1")(SmallCNN(**SIZE).double(), *images())

    def test_images_need_not_be_square(self):
        model = nn.Sequential(nn.Conv2d(3, 2, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 8, 5)).double()
        x, y = images(height=8, width=16)
        assert GradCAM()(model, x, y).shape == x.shape


MODELS = {
    "relu": lambda: LeNet(**SIZE, mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3]),
    "batch norm": lambda: ResNet(**RESNET),
    "pre-activation": lambda: PreActResNet(**SIZE, blocks=(1, 1), widths=(4, 8), stem=4, activation="silu"),
    "softplus": lambda: SmallCNN(**SIZE, activation="softplus"),
    "layer norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(784, 5)),
}


class TestFullGrad:
    @pytest.mark.parametrize("name", MODELS)
    def test_is_complete_before_psi(self, name):
        model, (x, y) = MODELS[name](), images()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.running_mean, module.running_var.uniform_(0.5, 2), module.bias.data):
                    values.add_(torch.rand_like(values))
        model = model.double().eval()
        terms = full_gradient(model, x, lambda logits: F.one_hot(y, 5).to(logits.dtype))
        total = sum(term.flatten(1).sum(1) for term in terms)
        torch.testing.assert_close(total, model(x).gather(1, y[:, None])[:, 0].detach())

    def test_terms_of_a_relu_network_are_its_biases(self):
        """For Conv – ReLU – Conv – pooling: x ⊙ ∇f, b ⊙ ∂f/∂y of both convolutions, and zero for ReLU."""
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AvgPool2d(12), nn.Flatten())
        model, (x, y) = model.double(), images()
        x.requires_grad_()
        first = model[0](x)
        (model[1:](first)[range(6), y]).sum().backward(inputs=[x, first.retain_grad() or first])
        terms = full_gradient(model, x.detach(), lambda logits: F.one_hot(y, 5).to(logits.dtype))
        torch.testing.assert_close(terms[0], (x * x.grad).detach())
        torch.testing.assert_close(terms[1], model[0].bias.detach()[:, None, None] * first.grad)
        assert (terms[2] == 0).all()
        expected = torch.zeros(6, 5, 12, 12, dtype=torch.float64)
        expected[range(6), y] = (model[2].bias.detach()[y] / 144)[:, None, None]
        torch.testing.assert_close(terms[3], expected)

    def test_the_map_is_the_sum_of_what_psi_makes_of_the_terms(self):
        model, (x, y) = nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.Flatten(), nn.Linear(32, 5)).double(), images()
        terms = full_gradient(model, x, lambda logits: F.one_hot(y, 5).to(logits.dtype))
        expected = torch.zeros(6, 16, 16, dtype=torch.float64)
        for term in terms[:2]:  # those of flatten and the dense layer have no place
            for i, one in enumerate(term.abs()):
                scaled = (one - one.min()) / (one.max() - one.min())
                expected[i] += F.interpolate(scaled[None], (16, 16), mode="bilinear")[0].sum(0)
        torch.testing.assert_close(channel_sum(FullGrad()(model, x, y)), expected)

    def test_a_network_with_biases_out_of_reach_is_refused(self):
        x, y = images()
        with pytest.raises(UserError, match="terms do not sum to the logit"):
            FullGrad()(transformer(), x, y)


def by_hand(model: VisionTransformer, x: Tensor) -> Tensor:
    """The rollout from the weights of torchvision's transformer, head by head: (N, T, T)."""
    tokens = model._process_input(x)
    tokens = torch.cat([model.class_token.expand(len(x), -1, -1), tokens], 1) + model.encoder.pos_embedding
    rollout = torch.eye(tokens.shape[1], dtype=x.dtype).expand(len(x), -1, -1)
    for block in model.encoder.layers:
        attend, normed = block.self_attention, block.ln_1(tokens)
        queries, keys, _ = F.linear(normed, attend.in_proj_weight, attend.in_proj_bias).chunk(3, -1)
        width = attend.head_dim
        heads = [slice(h * width, (h + 1) * width) for h in range(attend.num_heads)]
        each = [(queries[..., h] @ keys[..., h].mT / math.sqrt(width)).softmax(-1) for h in heads]
        rollout = (torch.stack(each).mean(0) / 2 + torch.eye(tokens.shape[1], dtype=x.dtype) / 2) @ rollout
        tokens = block(tokens)
    return rollout.detach()


class TestAttentionRollout:
    def test_by_hand_for_torchvision(self):
        model, (x, y) = transformer(num_layers=3), images()
        coarse = by_hand(model, x)[:, 0, 1:].view(6, 1, 4, 4)
        expected = F.interpolate(coarse, (16, 16), mode="bilinear")[:, 0]
        torch.testing.assert_close(channel_sum(AttentionRollout()(model, x, y)), expected)
        assert expected.std() > 0

    @pytest.mark.parametrize("tokens", ["class", "none", "registers"])
    def test_by_hand_for_timm(self, tokens):
        timm = pytest.importorskip("timm.models.vision_transformer")
        options = {
            "class": {},
            "none": {"class_token": False, "global_pool": "avg"},
            "registers": {"reg_tokens": 2},
        }
        shape = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 5}
        model, (x, y) = timm.VisionTransformer(**shape, **options[tokens]).double().eval(), images()
        fused = [block.attn.fused_attn for block in model.blocks]
        found = channel_sum(AttentionRollout()(model, x, y))
        assert [block.attn.fused_attn for block in model.blocks] == fused

        flow, inputs = torch.eye(16 + {"class": 1, "none": 0, "registers": 3}[tokens], dtype=x.dtype), []
        handles = [b.attn.qkv.register_forward_hook(lambda _, __, output: inputs.append(output)) for b in model.blocks]
        model(x)
        for handle in handles:
            handle.remove()
        for output in inputs:
            queries, keys, _ = output.unflatten(-1, (3, 2, 4)).unbind(2)
            weights = torch.einsum("nqhd,nkhd->nhqk", queries, keys).div(2).softmax(-1).mean(1)
            flow = (weights + torch.eye(weights.shape[-1])) / 2 @ flow
        row = flow.mean(1) if tokens == "none" else flow[:, 0]
        expected = F.interpolate(row[:, -16:].view(6, 1, 4, 4), (16, 16), mode="bilinear")[:, 0]
        torch.testing.assert_close(found, expected.detach())

    def test_is_the_same_for_all_classes(self):
        model, (x, _) = transformer(), images()
        assert torch.equal(AttentionRollout()(model, x, 0), AttentionRollout()(model, x, 4))

    def test_the_logits_are_not_changed_by_looking(self):
        model, (x, _) = transformer(), images()
        with attention(model) as seen:
            torch.testing.assert_close(model(x), transformer_logits := model(x))
        torch.testing.assert_close(model(x), transformer_logits)
        assert len(seen.matrices) == 4 and all(
            torch.allclose(m.sum(-1), torch.ones(())) for m in map(Tensor.float, seen.matrices)
        )

    @pytest.mark.parametrize(
        ("name", "message"),
        [("cnn", "needs a vision transformer"), ("windows", "attention between all of the same tokens")],
    )
    def test_other_networks_are_refused(self, name, message):
        x, y = images()
        if name == "cnn":
            model: nn.Module = SmallCNN(**SIZE)
        else:
            swin = pytest.importorskip("timm.models.swin_transformer")
            shape = {"img_size": 16, "patch_size": 2, "window_size": 2, "embed_dim": 4, "depths": (1, 1)}
            model = swin.SwinTransformer(**shape, num_heads=(1, 1), num_classes=5)
        with pytest.raises(UserError, match=message):
            AttentionRollout()(model.double().eval(), x, y)
