"""`python -m lightning_recipes`: the same as the command `lightning-recipes`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
