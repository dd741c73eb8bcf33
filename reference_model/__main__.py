"""`python -m reference_model`."""

import sys

from reference_model.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
