"""Use cases that the API, timers, the webhook and Event Grid share; they know no HTTP."""
