"""The ``patchwave`` command: starts, watches and controls runs through the app's HTTP API."""
