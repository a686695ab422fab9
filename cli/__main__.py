"""Lets ``python -m cli`` stand for the ``patchwave`` command."""

from cli.app import main

main()
