"""Table storage in memory, below `adapters.tables.requests`: ETags, conditions, transactions, errors of the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import count
from typing import Any, NoReturn

from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

from tests.chaos.cluster import travel
from tests.chaos.virtual import VirtualLoop
from tests.chaos.weather import Weather

type Entity = dict[str, Any]


class _Stored(dict[str, Any]):
    """An entity as the library gives it: columns, and the ETag beside them."""

    metadata: Mapping[str, Any]


class MemoryTables:
    """One storage account; requests take time, get lost, and fail during outages, as the weather has it."""

    def __init__(self, loop: VirtualLoop, weather: Weather) -> None:
        self.rows: dict[str, dict[tuple[str, str], _Stored]] = {}
        self.requests = 0
        self.weather = weather
        self._loop = loop
        self._versions = count(1)

    def get_table_client(self, name: str) -> MemoryTable:
        """One table."""
        return MemoryTable(self, self.rows.setdefault(name, {}))

    async def close(self) -> None:
        """Nothing is open."""

    async def carry_out[Answer](self, what: Any, *arguments: Any) -> Any:
        """One request: there, done, and back."""
        weather, source = self.weather, self.weather.source
        self.requests += 1
        await travel(weather)
        now = self._loop.time()
        if any(begin <= now < begin + seconds for begin, seconds in weather.outages):
            _refuse(503, "ServerBusy")
        if source.random() < weather.lost_requests:
            raise ServiceRequestError("the request was lost")
        answer = what(*arguments)
        await travel(weather)
        if source.random() < weather.lost_answers:
            raise ServiceResponseError("the answer was lost")
        return answer

    def stamp(self, entity: Entity) -> _Stored:
        """The entity as it is stored now."""
        stored = _Stored(entity)
        stored.metadata = {"etag": f'W/"{next(self._versions)}"'}
        return stored


class MemoryTable:
    """The part of ``azure.data.tables.aio.TableClient`` that is used."""

    def __init__(self, account: MemoryTables, rows: dict[tuple[str, str], _Stored]) -> None:
        self._account = account
        self._rows = rows

    async def create_table(self) -> object:
        """Tables are always there."""
        return None

    async def get_entity(
        self, partition_key: str, row_key: str, *, select: list[str] | None = None
    ) -> Mapping[str, Any]:
        """One entity; with ``select`` only these columns."""
        return await self._account.carry_out(self._get, partition_key, row_key, select)

    async def query_entities(
        self, query_filter: str, *, results_per_page: int, select: list[str] | None, parameters: Entity
    ) -> AsyncIterator[Mapping[str, Any]]:
        """The entities of one partition in key order, a request for each page."""
        terms = [term.split(" ") for term in query_filter.split(" and ")]
        after = ""
        while True:
            page: list[_Stored] = await self._account.carry_out(self._page, terms, parameters, after, results_per_page)
            for entity in page:
                yield _selected(entity, select)
            if len(page) < results_per_page:
                return
            after = str(page[-1]["RowKey"])

    async def submit_transaction(
        self, operations: Iterable[tuple[Any, ...]], *, retry_on_methods: list[str]
    ) -> list[Mapping[str, Any]]:
        """All operations or none of them."""
        return await self._account.carry_out(self._transact, list(operations))

    def _get(self, partition: str, key: str, select: list[str] | None) -> Mapping[str, Any]:
        found = self._rows.get((partition, key))
        if found is None:
            _refuse(404, "ResourceNotFound")
        return _selected(found, select)

    def _page(self, terms: list[list[str]], parameters: Entity, after: str, size: int) -> list[_Stored]:
        partition = parameters["partition"]
        found = sorted(key for owner, key in self._rows if owner == partition and key > after)
        entities = (self._rows[partition, key] for key in found)
        chosen: list[_Stored] = []
        for entity in entities:
            if all(_holds(entity, column, word, parameters[name[1:]]) for column, word, name in terms):
                chosen.append(entity)
                if len(chosen) == size:
                    break
        return chosen

    def _transact(self, operations: list[tuple[Any, ...]]) -> list[Mapping[str, Any]]:
        assert 0 < len(operations) <= 100, "a transaction has 1 to 100 operations"
        keys = [(operation[1]["PartitionKey"], operation[1]["RowKey"]) for operation in operations]
        assert len({partition for partition, _ in keys}) == 1, "a transaction has one partition"
        assert len(set(keys)) == len(keys), "a transaction has an entity once"
        made: dict[tuple[str, str], _Stored | None] = {}
        for index, (key, (verb, entity, *options)) in enumerate(zip(keys, operations, strict=True)):
            made[key] = self._changed(verb, self._rows.get(key), entity, options[0] if options else {}, index)
        for key, stored in made.items():
            if stored is None:
                del self._rows[key]
            else:
                self._rows[key] = stored
        return [{"etag": "" if stored is None else stored.metadata["etag"]} for stored in made.values()]

    def _changed(
        self, verb: str, present: _Stored | None, entity: Entity, guard: Mapping[str, Any], index: int
    ) -> _Stored | None:
        etag = guard.get("etag")
        if verb == "create":
            if present is not None:
                _refuse(409, "EntityAlreadyExists", index)
            return self._account.stamp(entity)
        if present is None and verb != "upsert":
            _refuse(404, "ResourceNotFound", index)
        if etag is not None and present is not None and present.metadata["etag"] != etag:
            _refuse(412, "UpdateConditionNotSatisfied", index)
        if verb == "delete":
            return None
        is_merge = str(getattr(guard["mode"], "value", guard["mode"])).lower() == "merge"
        return self._account.stamp({**(present or {}), **entity} if is_merge else entity)


def _selected(entity: _Stored, select: list[str] | None) -> _Stored:
    made = _Stored(entity if select is None else {name: entity[name] for name in select if name in entity})
    made.metadata = entity.metadata
    return made


def _holds(entity: Entity, column: str, word: str, value: Any) -> bool:
    found = entity.get(column)
    if found is None:
        return False
    match word:
        case "eq":
            return found == value
        case "ge":
            return found >= value
        case "gt":
            return found > value
        case "lt":
            return found < value
        case "le":
            return found <= value
        case _:
            raise ValueError(f"no word of OData that is used here: {word}")


def _refuse(status: int, code: str, index: int = 0) -> NoReturn:
    error = HttpResponseError(code)
    error.status_code = status
    error.error_code = code  # pyright: ignore[reportAttributeAccessIssue] - as the tables library decodes it
    error.index = index  # pyright: ignore[reportAttributeAccessIssue] - as above, of transactions
    raise error


__all__ = ["MemoryTables"]
