"""MIL ranking loops: twin loaders, items `(features, label)` or bare features `(T, D)`.

The contract differs from RTFM's in the items alone: no crops, the label a python
number or not there at all, a dictionary in place of a tuple. All of that is read off
the items, so the verbs are the same. A loader of abnormal videos that comes first in
the host is still given second here.
"""

from .rtfm import attach, videos, wrap

__all__ = ["attach", "videos", "wrap"]
