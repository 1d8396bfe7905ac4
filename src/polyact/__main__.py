"""`python -m polyact` is the command line."""

import sys

from polyact.app.cli import process

if __name__ == "__main__":
    sys.exit(process())
