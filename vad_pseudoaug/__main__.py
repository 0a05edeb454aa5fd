"""`python -m vad_pseudoaug` is the command `vad-pseudoaug`."""

import sys

from .cli import main

sys.exit(main())
