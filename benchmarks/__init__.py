"""Measurements with bars: each prints JSON and fails when a bar is missed. Not deployed."""
