"""`python -m microtome`, the same as the command `microtome`."""

from microtome.cli.main import main

if __name__ == "__main__":
    main()
