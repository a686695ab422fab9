"""An embedded Functions host: durable engine, worker processes, HTTP, timers and Event Grid on loopback."""
