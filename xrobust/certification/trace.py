"""From a module to its graph, by symbolic tracing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Size, Tensor, fx, nn

from xrobust.certification.graph import Graph, Step
from xrobust.certification.rules.registry import (
    Call,
    Input,
    Statistics,
    UnsupportedOperation,
    builder_for,
    named,
)
from xrobust.errors import UserError
from xrobust.frame import untouched

EXAMPLES, OTHERS = 3, 2  # images in the example batch, and in the check, which takes another number
FACTS = ("size", "dim", "ndimension", "numel", "nelement")  # what a graph may ask of a tensor and take for a constant
ATTRIBUTES = ("shape", "ndim", "device", "dtype")


def trace(model: nn.Module, image: Tensor) -> Graph:
    """The graph of a network.

    It refers to the module's parameters and buffers by their names: after a training step, `.to(…)` or
    `load_state_dict` it stands for the network as it is then.

    Args:
        model: images (N, C, H, W) → logits (N, K).
        image: one image (C, H, W) of the size that the network will be used with.

    Raises:
        UnsupportedOperation: naming the operation and the path of its module.
        UserError: if the network cannot be traced, or the graph does not compute what the network computes.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(EXAMPLES + OTHERS, *image.shape, generator=generator, dtype=torch.float64)
    drawn[-1] = drawn[-1].round()  # black and white
    examples, others = drawn.to(image).split([EXAMPLES, OTHERS])
    with untouched(model, image), torch.no_grad():
        graph = _Tracing(model, examples.clone()).graph()
        _require_same(model, graph, others)
        return graph


class _Tracing:
    """Walks the symbolic trace once, computing every node for example images."""

    def __init__(self, model: nn.Module, examples: Tensor):
        self.model = model
        traced = _symbolic(model)
        self.interpreter, self.symbolic = fx.Interpreter(traced), traced.graph
        self.live = _live(traced.graph)
        self.values: dict[fx.Node, Any] = {}  # the value of each node for the examples
        self.versions: dict[fx.Node, int] = {}  # of the tensors among them, which changes in place count up
        self.places: dict[fx.Node, int] = {}  # nodes that depend on the image → positions in the graph
        self.current: dict[fx.Node, Callable[[], Any]] = {}  # constants that depend on weights or buffers
        self.steps: list[Step] = []
        self.shapes: list[Size] = [examples.shape[1:]]
        self.examples = examples
        tensors = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
        self.names = {name for named_tensors in tensors for name, _ in named_tensors}

    def graph(self) -> Graph:
        for node in self.symbolic.nodes:
            self._require_unchanged(node)
            if node.op == "output":
                last = self.places.get(node.args[0])
                if last is None or last != len(self.steps) or len(self.shapes[last]) != 1:
                    raise UserError(f"no bound is known for {type(self.model).__name__}: it must return logits (N, K)")
            elif node.op == "placeholder":
                self._placeholder(node)
            else:
                self._value(node)
                if node not in self.live:
                    continue
                if any(source in self.places for source in node.all_input_nodes):
                    self._step(node)
                else:
                    self.current[node] = self._constant(node)
        return Graph(tuple(self.steps), tuple(self.shapes))

    def _placeholder(self, node: fx.Node) -> None:
        if not self.places:
            self._keep(node, self.examples)
            self.places[node] = 0
        elif node.args:
            self.values[node] = node.args[0]
        else:
            raise UserError(f"no bound is known for {type(self.model).__name__}: it needs the argument {node.target}")

    def _value(self, node: fx.Node) -> None:
        self.interpreter.env = self.values
        self._keep(node, self.interpreter.run_node(node))

    def _keep(self, node: fx.Node, value: Any) -> None:
        self.values[node] = value
        if isinstance(value, Tensor):
            self.versions[node] = value._version

    def _require_unchanged(self, node: fx.Node) -> None:
        """A graph of values knows nothing of memory: what was changed in place must not be used again."""
        for source in node.all_input_nodes:
            if source in self.versions and self.values[source]._version != self.versions[source]:
                raise UnsupportedOperation(
                    f"no bound is known where a value is used again after a change in place, as {source.name!r} is in "
                    f"{named(node.target)}, at {_path(node)!r} of the model"
                )

    def _constant(self, node: fx.Node) -> Callable[[], Any]:
        """What computes a constant anew."""
        if node.op == "get_attr" and str(node.target) in self.names:
            return lambda: attrgetter(str(node.target))(self.model)
        if not any(source in self.current for source in node.all_input_nodes):
            return lambda: self.values[node]

        def compute() -> Any:
            args, kwargs = self._now(node.args), self._now(node.kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            function = node.target if callable(node.target) else self.model.get_submodule(node.target)
            return function(*args, **kwargs)

        return compute

    def _now(self, argument: Any) -> Any:
        return fx.map_arg(argument, lambda source: self.current.get(source, lambda: self.values[source])())

    def _step(self, node: fx.Node) -> None:
        result = self.values[node]
        if node.target in FACTS or (node.target is getattr and node.args[1] in ATTRIBUTES):
            return  # where it matters, in a reshape, the shape of the result is known
        module = self.model.get_submodule(str(node.target)) if node.op == "call_module" else None
        target, where = node.target if module is None else type(module), _path(node)
        build = builder_for(target)
        if build is None or not isinstance(result, Tensor):
            raise UnsupportedOperation(f"no bound is known for {named(target)}, at {where!r} of the model")
        if module is not None and _has_hooks(module):
            raise UnsupportedOperation(f"no bound is known for {named(target)} with a hook, at {where!r} of the model")
        if not result.shape[:1] == (EXAMPLES,) or not result.is_floating_point():
            raise UnsupportedOperation(
                f"no bound is known across images, as in {named(target)} at {where!r} of the model"
            )
        blank = Call(where, named(target), module, (), {}, result.shape[1:])
        sources: list[int] = []
        make = self._call(node, blank, sources)
        build(make({}))  # refuses now what it will refuse later
        self.steps.append(Step(where, tuple(sources), make, build))
        self.places[node] = len(self.steps)
        self.shapes.append(result.shape[1:])

    def _call(self, node: fx.Node, blank: Call, sources: list[int]) -> Callable[[Statistics], Call]:
        """What makes the call; it leaves the nodes that the call takes in `sources`."""

        def make(statistics: Statistics) -> Call:
            sources.clear()

            def fill(source: fx.Node) -> Any:
                if source not in self.places:
                    return self._now(source)
                sources.append(self.places[source])
                return Input(len(sources) - 1, self.shapes[sources[-1]])

            args, kwargs = fx.map_arg(node.args, fill), fx.map_arg(node.kwargs, fill)
            return replace(blank, args=args, kwargs=kwargs, statistics=statistics)

        return make


class _Tracer(fx.Tracer):
    """Modules that have a rule stay whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return builder_for(type(m)) is not None or super().is_leaf_module(m, module_qualified_name)


def _symbolic(model: nn.Module) -> fx.GraphModule:
    """The symbolic trace; the model is left as it was."""
    before = set(vars(model))
    try:
        traced = fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # whatever the model's forward does with symbols in place of numbers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{type(model).__name__} cannot be traced, so no bound is known for it: {reason}") from error
    finally:
        for name in set(vars(model)) - before:  # tensors made in the forward pass, which the tracer leaves here
            delattr(model, name)
    return traced


def _live(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    found: set[fx.Node] = set()
    stack = [node for node in graph.nodes if node.op == "output"]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
    return found


def _path(node: fx.Node) -> str:
    """Where in the model a node is."""
    return str(node.target) if node.op == "call_module" else next(reversed(node.meta.get("nn_module_stack", {})), "")


def _has_hooks(module: nn.Module) -> bool:
    """Whether it has hooks besides those of weight norm, spectral norm and pruning, which change the weights alone."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return not all(type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks)


def _require_same(model: nn.Module, graph: Graph, images: Tensor) -> None:
    """The graph and the network must agree on images, to half of the digits."""
    message = f"no bound is known for {type(model).__name__}: its traced graph does not compute what it does"
    try:
        expected, found = model(images), graph.network().values(images)[-1]
    except RuntimeError as error:  # such as a shape that holds the number of images
        raise UserError(f"{message} ({error})") from error
    tolerance = math.sqrt(torch.finfo(expected.dtype).eps) * expected.nan_to_num().abs().amax().item()
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=0, atol=tolerance, equal_nan=True):
        raise UserError(message)
