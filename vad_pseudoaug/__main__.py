"""`python -m vad_pseudoaug` is the command `vad-pseudoaug`."""

import os
import sys

from .cli import main

# What processes share when torchrun starts several. Of all else the first does all.
SHARED = ("fit", "generate", "compare")

if os.environ.get("RANK", "0") == "0" or set(SHARED) & set(sys.argv[1:2]):
    sys.exit(main())
