"""`python -m maskfast` is the command line."""

from maskfast.apps.cli import main

if __name__ == "__main__":
    main()
