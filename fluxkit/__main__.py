"""`python -m fluxkit`."""

from fluxkit.cli import main

if __name__ == "__main__":
    main()
