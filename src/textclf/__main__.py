"""`python -m textclf`."""

from textclf.cli.app import main

main()
