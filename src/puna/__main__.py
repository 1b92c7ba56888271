"""``python -m puna``: the command line."""

from puna.cli import main

if __name__ == "__main__":
    main()
