"""Thousands of small rows of Resource Graph in a few large ones: a query costs the quota a page of 1,000 rows.

``summarize make_list(pack(...))`` groups the rows of all machines by the last two characters of the machine's name, so
that 10,000 machines come as some hundred rows, which are one page. Each group brings its count: a list that Azure cut
is noticed. Sources: the published queries of Azure's security tables (``make_list(pack(...))``), and KQL's reference
for a negative start of ``substring``. That a page needs the column ``id`` for a token is documented for paging.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from patchwave.domain.core.documents import objects_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.discovery import SUBSCRIPTIONS_PER_QUERY, DiscoveryQuery, literal, one_of
from patchwave.domain.policy.scope import Scope

MAX_NAMED = 200
"""Machines that a query names; of more, it reads their subscriptions."""


class PackedTable(NamedTuple):
    """Rows of one type that belong to machines.

    Args:
        table: of Resource Graph.
        kind: the type of the rows.
        behind: what stands behind the machine's id in the id of a row, in lower case.
        columns: what a row has, as name and expression; ``id`` and ``properties`` are there to build them from.
        where: a further condition.
        newest_by: keep only the row of each machine with the largest value of this expression.
    """

    table: str
    kind: str
    behind: str
    columns: Mapping[str, str]
    where: str = ""
    newest_by: str = ""

    def queries(self, scope: Scope) -> list[DiscoveryQuery]:
        """The queries that together return the rows of every machine of a scope, and of others."""
        named = list(filter(None, map(MachineId.find, scope.machine_ids)))
        if scope.machine_ids and len(named) <= MAX_NAMED:
            condition = one_of("owner", [fold(machine.text) for machine in named])
            subscriptions = tuple(sorted({machine.subscription_id for machine in named}))
            return [DiscoveryQuery(text=self._query(condition), subscriptions=subscriptions)] if named else []
        subscriptions = sorted({machine.subscription_id for machine in named}) or list(scope.subscriptions)
        condition = one_of("resourceGroup", scope.resource_groups)
        chunks = range(0, len(subscriptions), SUBSCRIPTIONS_PER_QUERY)
        return [
            DiscoveryQuery(
                text=self._query(condition), subscriptions=tuple(subscriptions[at : at + SUBSCRIPTIONS_PER_QUERY])
            )
            for at in chunks
        ] or [DiscoveryQuery(text=self._query(condition))]

    def _query(self, condition: str = "") -> str:
        packed = ", ".join(f"{literal(name)}, {expression}" for name, expression in self.columns.items())
        lines = [self.table, f"| where type =~ {literal(self.kind)}"]
        lines += [f"| where {self.where}"] if self.where else []
        lines += [f"| extend owner = tostring(split(tolower(id), {literal(self.behind)})[0])"]
        lines += [f"| where {condition}"] if condition else []
        if self.newest_by:
            lines += [f"| extend at = {self.newest_by}", "| summarize arg_max(at, id, properties) by owner"]
        lines += [
            "| extend bucket = substring(owner, -2), size = strlen(id)",
            f"| summarize amount = count(), packed = make_list(pack({packed})), arg_max(size, id) by bucket",
            "| order by id asc",
        ]
        return "\n".join(lines)


def unpack_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """The rows that were packed, and how many of them Azure left out."""
    unpacked: list[Mapping[str, Any]] = []
    missing = 0
    for row in rows:
        listed = objects_or_empty(row.get("packed"))
        amount = row.get("amount")
        missing += max(0, amount - len(listed)) if isinstance(amount, int) else 0
        unpacked += listed
    return unpacked, missing


def by_owner(rows: Iterable[Mapping[str, Any]], behind: str) -> dict[str, Mapping[str, Any]]:
    """The rows by the machine that their ids begin with, in lower case; those of no machine are passed over."""
    found = {fold(str(row.get("id") or "")).partition(behind)[0]: row for row in rows}
    return {owner: row for owner, row in found.items() if owner}
