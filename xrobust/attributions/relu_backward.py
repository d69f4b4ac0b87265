"""Methods that change what a ReLU does to the signal on its way back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.graph import GraphReader, operation
from xrobust.attributions.hooks import described, hooked
from xrobust.errors import UserError
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class ReLUBackward(Attribution):
    """The base of the input gradient with another backward pass through each `nn.ReLU`.

    It cannot be differentiated: in a ReLU network the map is constant in x between the kinks.

    Class attributes:
        explains: the kind of network that the method is for, "relu".

    Raises (when called):
        UserError: if the network has no `nn.ReLU`, or also applies ReLU as a function, where no rule can reach
            it: part or all of the map would silently be the plain gradient.
    """

    differentiable: ClassVar[bool] = False
    explains: ClassVar[str] = "relu"
    demands: ClassVar[str] = "a gradient, and each ReLU as a module"

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        with replaced_relus(model, self.relu, type(self).__name__):
            return self.gradient(model, x[None], score, create_graph)[0]

    @staticmethod
    @abstractmethod
    def relu(x: Tensor) -> Tensor:
        """ReLU with the method's backward pass."""


@contextmanager
def replaced_relus(model: nn.Module, relu: Callable[[Tensor], Tensor], method: str) -> Iterator[None]:
    """Each `nn.ReLU` of the network is `relu` inside."""
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise UserError(f"{method} changes the backward pass of nn.ReLU modules, but the model has none")
    reader = GraphReader()

    def replace(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        return relu(inputs[0]) if isinstance(module, nn.ReLU) else None

    def check(path: str, made: Tensor) -> None:
        if any(operation(node) == "Relu" for node in reader.new_nodes(made)):
            raise UserError(
                f"{method} changes the backward pass of nn.ReLU modules, "
                f"but {described(model, path)} applies ReLU as a function"
            )

    with hooked(model, replace, check):
        yield
