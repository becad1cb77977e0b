"""Let `python -m tsm2.cli` run the command line."""

from tsm2.cli import main

if __name__ == "__main__":
    main()
