"""Orchestrators: durable generators. Rules are in `patchwave.domain`, effects in activities."""
