"""`python -m edgechat` is the `edgechat` command."""

from edgechat.cli import main

if __name__ == "__main__":
    main()
