"""MIL ranking loops: twin loaders, items `(features, label)` or bare features `(T, D)`.

The contract differs from RTFM's in the items alone: no crops, the label a python
number or not there at all, a dictionary in place of a tuple. All of that is read off
the items, so the verbs are the same.
"""

from .rtfm import attach, wrap

__all__ = ["attach", "wrap"]
