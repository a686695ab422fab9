"""Triggers beside the API: timers, the webhook, Event Grid."""

from triggers import event_grid, timers, webhook

__all__ = ["event_grid", "timers", "webhook"]
