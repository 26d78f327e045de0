"""`python -m gateway.settings reference|example` prints the generated files."""

import sys

from gateway.settings import example, reference

if __name__ == "__main__":
    sys.stdout.write(example() if sys.argv[1:] == ["example"] else reference())
