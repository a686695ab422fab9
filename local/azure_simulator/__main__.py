"""``python -m local.azure_simulator``: starts the simulator and writes its addresses."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from pathlib import Path

from local.azure_simulator.clock import Clock
from local.azure_simulator.fleet import Fleet, FleetError, generate_fleet, read_fleet
from local.azure_simulator.maintenance.event_grid import EventGrid
from local.azure_simulator.maintenance.scheduler import Schedules
from local.azure_simulator.server.app import make_app, make_identity_app
from local.azure_simulator.server.identity import Identity
from local.azure_simulator.server.listen import Connections, listen, serve
from local.azure_simulator.server.metrics import Metrics
from local.azure_simulator.server.tls import make_certificates
from local.azure_simulator.state import AzureState
from local.processes import die_with_parent, write_atomically

_YOUNG_GARBAGE = (10_000, 20, 1_000_000)
"""Thresholds of the garbage collector. Full collections are rare: with thousands of machines one takes a third of a
second, and requests that come meanwhile would seem simultaneous."""


def _retry_after(text: str) -> int | None:
    if text == "none":
        return None
    seconds = int(text)
    if seconds < 0:
        raise argparse.ArgumentTypeError("none, or whole seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m local.azure_simulator", description="Azure Resource Manager, simulated."
    )
    fleet = parser.add_mutually_exclusive_group(required=True)
    fleet.add_argument("--fleet", type=Path, help="JSON of an az list, a Resource Graph query, or an ARM list")
    fleet.add_argument("--machines", type=int, help="make up a fleet of so many machines")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is made up (default 1)")
    parser.add_argument("--state", type=Path, required=True, help="folder for the certificates")
    parser.add_argument("--port", type=int, default=0, help="HTTPS port; 0 takes a free one")
    parser.add_argument("--identity-port", type=int, default=0, help="HTTP port of the identity endpoint")
    parser.add_argument("--speed", type=float, default=60.0, help="simulated seconds per real second (default 60)")
    parser.add_argument("--retry-after", type=_retry_after, default=None, help="none, or seconds to send on polls")
    parser.add_argument("--graph-lag", type=float, default=60, help="simulated seconds behind in Resource Graph")
    parser.add_argument("--token-seconds", type=int, default=86_400, help="lifetime of an access token")
    parser.add_argument("--ready", type=Path, help="file that is written when the simulator listens")
    parser.add_argument("--parent", type=int, help="pid of the process that this one must not outlive")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; returns 2 for invalid arguments or an unusable fleet."""
    options = _parser().parse_args(arguments)
    if options.parent is not None:
        die_with_parent(parent=options.parent)
    app_socket, identity_socket = listen(options.port), listen(options.identity_port)
    base_url = f"https://localhost:{app_socket.getsockname()[1]}"
    identity_url = f"http://localhost:{identity_socket.getsockname()[1]}/msi/token"
    try:
        clock = Clock(options.speed)
        if options.fleet is not None:
            fleet = read_fleet(options.fleet, clock, options.seed)
        else:
            fleet = Fleet(generate_fleet(options.machines, clock, options.seed))
    except ValueError as error:
        kind = "fleet" if isinstance(error, FleetError) else "argument"
        sys.stderr.write(f"simulator: {kind}: {error}\n")
        return 2
    for note in fleet.notes:
        sys.stderr.write(f"simulator: fleet: {note}\n")
    machines = [*fleet.machines, *fleet.arc_machines]
    gc.set_threshold(*_YOUNG_GARBAGE)
    azure = AzureState(
        machines,
        clock,
        base_url,
        seed=options.seed,
        retry_after=options.retry_after,
        geography=fleet.geography,
        graph_lag=options.graph_lag,
        scale_sets=fleet.scale_sets,
    )
    events = EventGrid(Schedules(azure))
    identity = Identity(azure, lifetime=options.token_seconds)
    bundle, certificate = make_certificates(options.state.resolve())
    document = {
        "pid": os.getpid(),
        "arm": base_url,
        "identity": identity_url,
        "ca": str(bundle),
        "machines": len(machines),
        "subscriptions": [each[0].subscription_id for each in azure.by_subscription.values()],
        "notes": fleet.notes,
        "environment": {
            "SSL_CERT_FILE": str(bundle),
            "REQUESTS_CA_BUNDLE": str(bundle),
            "IDENTITY_ENDPOINT": identity_url,
            "IDENTITY_HEADER": identity.header,
            "PATCHWAVE_RESOURCE_MANAGER": base_url,
        },
    }

    def announce() -> None:
        if options.ready is not None:
            write_atomically(options.ready, document)
        sys.stdout.write(f"simulator: {len(machines)} machines at {base_url}, speed {options.speed:g}\n")
        sys.stdout.flush()

    connections = Connections()
    asyncio.run(
        serve(
            (make_app(azure, identity, connections.reset, events), app_socket),
            (make_identity_app(identity), identity_socket),
            certificate,
            connections,
            announce,
            _meanwhile(events, azure.metrics),
        )
    )
    return 0


async def _meanwhile(events: EventGrid, metrics: Metrics) -> None:
    """Background work beside the requests, until it is cancelled."""
    await asyncio.gather(events.run(), metrics.notice_delays())


if __name__ == "__main__":
    sys.exit(main())
