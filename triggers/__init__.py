"""Who may start or steer a run: HTTP API, webhook, timer, Event Grid; and the health function."""
