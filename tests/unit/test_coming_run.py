"""Coming runs of a maintenance configuration: their names and their last moments."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.coming_run import coming_runs, parse_run
from tests.unit.maintenance_samples import CONFIGURATION, THEN, configuration

CUTOFF = timedelta(minutes=10)


def test_coming_runs_have_names_that_azure_takes_and_a_last_moment() -> None:
    first, second = coming_runs(configuration(), THEN, 2, CUTOFF)
    assert first.run == "20210820194800"
    assert first.starts_at - first.cancel_until == CUTOFF
    assert second.run == "20210821194800"
    assert parse_run(first.run) == first.starts_at
    correlation = f"{CONFIGURATION}/providers/microsoft.maintenance/applyupdates/{first.run}"
    assert parse_run(correlation) == first.starts_at


@pytest.mark.parametrize("text", ["", "2021", "20211320194800", "2021-08-20T19:48:00Z", "x20210820194800"])
def test_what_is_no_run(text: str) -> None:
    with pytest.raises(ValueError, match=r"name of a run|is no time"):
        parse_run(text)
