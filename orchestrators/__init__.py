"""The workflow as durable generators: rules are in ``domain``, effects in activities."""
