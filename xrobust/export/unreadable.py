"""Files of weights that cannot be read."""

from __future__ import annotations

import pickle

# What torch.load raises on anything but what torch.save wrote, and on what lacks an entry.
UNREADABLE = (RuntimeError, EOFError, KeyError, IndexError, TypeError, ValueError, OSError, pickle.UnpicklingError)


def reason(error: Exception) -> str:
    """A colon and the first line of the error, or nothing where it says but a key or a number."""
    if isinstance(error, pickle.UnpicklingError):  # torch's own advice is to run what the file says
        return ": it is no file of torch.save, or holds more than tensors"
    lines = str(error).splitlines()
    return "" if isinstance(error, KeyError | IndexError) or not lines else f": {lines[0]}"
