"""`python -m gateway` and the `gateway` command: hands over to `gateway.cli`."""

from gateway.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
