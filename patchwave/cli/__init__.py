"""The ``patchwave`` command: starts, watches and steers runs through the app's HTTP API."""
