"""docs/reference/retention.md names every table that the app keeps, and nothing else."""

from __future__ import annotations

import re
from typing import Any, cast

from local import ROOT
from patchwave.storage.engine.store import Store
from patchwave.storage.engine.table import Table

PAGE = ROOT / "docs/reference/retention.md"


class Client:
    url = "https://account.table.example"
    table_name = "none"
    _client = None

    def get_table_client(self, name: str) -> Client:
        return self


def test_every_table_is_in_the_list_with_what_bounds_it() -> None:
    store = Store(cast("Any", Client()), "patchwave")
    kept = {name for name, value in vars(store).items() if isinstance(value, Table)}
    listed = re.findall(r"^\| `([a-z]+)` \| [^|]+ \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == kept
    assert len(kept) >= 7
