"""What starts work beside the API: timers, the webhook, Event Grid."""
