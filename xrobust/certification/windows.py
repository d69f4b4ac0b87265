"""Linear forms of few neighbouring values each, as those of single units after a convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Size, Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """S linear forms for each sample of values (N, C, H, W), with coefficients in one window of each form alone.

    Attributes:
        coefficients: (N, S, h, w, C); 0 where a window lies outside the H × W values.
        top, left: where each window begins, (N, S) int64; negative if that is outside.
        shape: (C, H, W).
    """

    coefficients: Tensor
    top: Tensor
    left: Tensor
    shape: Size

    @staticmethod
    def units(index: Tensor, shape: Size, dtype: torch.dtype) -> Windows:
        """The values of single units: positions (N, S) in the flattened (C, H, W)."""
        channels, height, width = shape
        channel, place = index // (height * width), index % (height * width)
        one = F.one_hot(channel, channels).to(dtype)[:, :, None, None]
        return Windows(one, place // width, place % width, shape)

    def both_signs(self) -> Windows:
        """The forms, and after them their negatives."""
        top, left = (torch.cat([each, each], 1) for each in (self.top, self.left))
        return Windows(torch.cat([self.coefficients, -self.coefficients], 1), top, left, self.shape)

    def replaced(self, coefficients: Tensor) -> Windows:
        """Other coefficients in the same windows."""
        return replace(self, coefficients=coefficients)

    def moved(self, coefficients: Tensor, stride: tuple[int, int], padding: tuple[int, int], shape: Size) -> Windows:
        """Forms of the values (C′, H′, W′) before an operation that slides: windows begin at stride · top − padding."""
        top, left = (at * s - p for at, s, p in zip((self.top, self.left), stride, padding, strict=True))
        return Windows(coefficients, top, left, shape)._outside_zero()

    def of(self, values: Tensor) -> Tensor:
        """What each window shows of values (N, C, H, W), 0 outside them: (N, S, h, w, C).

        Values (C, 1, 1), the same at all places, come as (1, 1, C).
        """
        if values.dim() == 3:
            return values.movedim(0, -1)
        height, width = self.coefficients.shape[2:4]
        before, after = self._overhang
        padded = F.pad(values.movedim(1, -1), (0, 0, before[1], after[1], before[0], after[0]))
        rows = padded.unfold(2, width, 1).movedim(-1, 3).flatten(3)  # for each row and each begin: w · C numbers
        samples, lines, begins, _ = rows.shape
        sample = torch.arange(samples, device=values.device).view(-1, 1, 1)
        row = (self.top + before[0]).unsqueeze(2) + torch.arange(height, device=values.device)
        index = (sample * lines + row) * begins + (self.left + before[1]).unsqueeze(2)
        shape = (*index.shape, width, values.shape[1])
        return rows.reshape(-1, rows.shape[3]).index_select(0, index.flatten()).view(shape)

    def dense(self) -> Tensor:
        """The same forms with a coefficient for every value: (N, S, C, H, W)."""
        coefficients = self.coefficients
        before, after = self._overhang
        height, width = (side + low + high for side, low, high in zip(self.shape[1:], before, after, strict=True))
        rows, columns = self._places()
        index = ((rows + before[0]).unsqueeze(3) * width + (columns + before[1]).unsqueeze(2)).flatten(2)
        index = index.unsqueeze(3).expand(-1, -1, -1, self.shape[0])
        zeros = coefficients.new_zeros(*coefficients.shape[:2], height * width, self.shape[0])
        full = zeros.scatter(2, index, coefficients.flatten(2, 3)).unflatten(2, (height, width))
        inside = full[:, :, before[0] : height - after[0], before[1] : width - after[1]]
        return inside.movedim(-1, 2)

    def _places(self) -> tuple[Tensor, Tensor]:
        """The rows (N, S, h) and columns (N, S, w) that the windows cover."""
        size = self.coefficients.shape[2:4]
        down, across = (torch.arange(side, device=self.top.device) for side in size)
        return self.top.unsqueeze(2) + down, self.left.unsqueeze(2) + across

    @cached_property
    def _overhang(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How far windows reach out of the values: above and to the left, below and to the right."""
        reach = []
        for at, size, side in zip((self.top, self.left), self.coefficients.shape[2:4], self.shape[1:], strict=True):
            first, last = (int(end) for end in torch.aminmax(at))
            reach.append((max(0, -first), max(0, last + size - side)))
        (above, below), (left, right) = reach
        return (above, left), (below, right)

    def _outside_zero(self) -> Windows:
        """The same with zeros where windows lie outside the values."""
        if self._overhang == ((0, 0), (0, 0)):
            return self
        rows, columns = ((at >= 0) & (at < side) for at, side in zip(self._places(), self.shape[1:], strict=True))
        inside = (rows.unsqueeze(3) & columns.unsqueeze(2)).unsqueeze(4)
        return self.replaced(self.coefficients * inside)
