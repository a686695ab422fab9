"""Coming runs of a maintenance configuration: their names and their last moments."""

from __future__ import annotations

from datetime import timedelta

import pytest

from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.maintenance.upcoming_run import canceled_by_configuration, coming_run, coming_runs, parse_run
from tests.support.maintenance_samples import CONFIGURATION, THEN, configuration

CUTOFF = timedelta(minutes=10)


def test_coming_runs_have_names_that_azure_takes_and_a_last_moment() -> None:
    first, second = coming_runs(configuration(), THEN, 2, CUTOFF)
    assert first.run == "20210820194800"
    assert first.starts_at - first.cancel_deadline == CUTOFF
    assert second.run == "20210821194800"
    assert parse_run(first.run) == first.starts_at
    correlation = f"{CONFIGURATION}/providers/microsoft.maintenance/applyupdates/{first.run}"
    assert parse_run(correlation) == first.starts_at


def test_a_cancelled_run_stays_in_its_place_as_cancelled() -> None:
    runs = coming_runs(configuration(), THEN, 3, CUTOFF, {"20210821194800"})
    assert [(run.run, run.canceled) for run in runs] == [
        ("20210820194800", False),
        ("20210821194800", True),
        ("20210822194800", False),
    ]
    assert coming_run(Occurrence(runs[1].starts_at, runs[1].ends_at), CUTOFF, {"20210821194800"}) == runs[1]


def test_cancelled_runs_are_read_off_resource_graph_without_case() -> None:
    correlation = f"{CONFIGURATION.lower()}/providers/microsoft.maintenance/applyupdates/"
    rows = [
        {"id": "x", "properties": {"correlationId": correlation + "20210820194800", "status": "Cancelled"}},
        {"id": correlation + "20210821194800", "properties": {"Status": "cancelled"}},
        {"id": correlation + "20210822194800", "properties": {"status": "Pending"}},
        {"id": correlation + "tonight", "properties": {"status": "Cancelled"}},
        {"id": None, "properties": None},
    ]
    assert canceled_by_configuration(rows) == {
        ConfigurationId.parse(CONFIGURATION): {"20210820194800", "20210821194800"}
    }


@pytest.mark.parametrize("text", ["", "2021", "20211320194800", "2021-08-20T19:48:00Z", "x20210820194800"])
def test_what_is_no_run(text: str) -> None:
    with pytest.raises(ValueError, match=r"name of a run|is no time"):
        parse_run(text)
