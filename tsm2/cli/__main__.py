"""Let `python -m tsm2.cli` run the command line."""

from tsm2.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
