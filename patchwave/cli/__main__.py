"""Lets ``python -m patchwave.cli`` stand for the ``patchwave`` command."""

from patchwave.cli.app import main

main()
