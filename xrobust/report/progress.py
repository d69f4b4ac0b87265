"""How far an evaluation is, live on the terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status


def busy(text: str) -> Status:
    """A line that moves while something without steps goes on; use it as a context manager."""
    return Console().status(text)


class Turn(Protocol):
    """A member of an attack is done with a batch of samples."""

    @property
    def threat(self) -> str: ...
    @property
    def member(self) -> str: ...
    @property
    def samples(self) -> int: ...
    @property
    def standing(self) -> int: ...


class LiveBar:
    """A bar over samples with the time that is left; use it as a context manager.

    Args:
        total: how many samples there are to go through.
        text: what stands before the bar.
    """

    def __init__(self, total: int, text: str):
        columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task(text, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, samples: int, text: str) -> None:
        """So many samples more are done."""
        self._progress.update(self._task, advance=samples, description=text)


class EvaluationProgress(LiveBar):
    """How many samples stand after which attack; call it with each turn.

    Args:
        total: samples × turns of the whole evaluation.
    """

    def __init__(self, total: int):
        super().__init__(total, "attacking")
        self._standing: dict[str, Counter[str]] = defaultdict(Counter)

    def __call__(self, turn: Turn) -> None:
        standing = self._standing[turn.threat]
        standing[turn.member] += turn.standing
        counts = "\n".join(f"  {count} stand after {member}" for member, count in standing.items())
        self.advance(turn.samples, f"{turn.threat}\n{counts}")
