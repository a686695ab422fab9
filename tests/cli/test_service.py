"""What the command says and how it ends when the service is not there, is not Patchwave, or wants another key."""

import socket

import pytest
from starlette.responses import RedirectResponse, Response

from patchwave.cli.errors import ExitCode
from tests.cli.conftest import Patchwave
from tests.cli.service import Service, problem, text_answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_refused_connection(patchwave: Patchwave):
    url = f"http://127.0.0.1:{free_port()}"
    result = patchwave("run", "list", "--url", url)
    assert result.code == ExitCode.UNREACHABLE
    assert f"{url} cannot be reached" in result.errors


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            problem(503, "Storage does not answer", "Try again later"),
            3,
            "Storage does not answer. Try again later (503)",
        ),
        (text_answer(502, "<html>bad gateway"), 3, "answered 502"),
        (text_answer(200, "<html>hello"), 3, "is it Patchwave?"),
        (text_answer(200, "[]"), 3, "is it Patchwave?"),
        (text_answer(401, ""), 2, "PATCHWAVE_KEY"),
        (
            problem(401, "Unauthorized", "Sign in."),
            2,
            "Unauthorized. Sign in (401): set PATCHWAVE_TOKEN to a token that has not expired",
        ),
        (problem(429, "Too many requests", ""), 2, "Too many requests (429)"),
        (RedirectResponse("https://elsewhere.example/"), 3, "https://elsewhere.example/"),
    ],
)
def test_an_answer_that_is_no_success(patchwave: Patchwave, service: Service, answer: Response, code: int, said: str):
    service.answers = [answer]
    result = patchwave("run", "list")
    assert (result.code, result.output) == (code, "")
    assert said in result.errors


@pytest.mark.parametrize("url", ["localhost:7071", "ftp://localhost", "https://"])
def test_an_address_that_is_none(patchwave: Patchwave, url: str):
    assert patchwave("run", "list", "--url", url).code == ExitCode.REFUSED


def test_the_key_is_never_sent_in_clear_over_a_network(patchwave: Patchwave):
    result = patchwave("run", "list", "--url", "http://patchwave.example", "--key", "secret")
    assert result.code == ExitCode.REFUSED
    assert "secret" not in result.errors


def test_the_key_comes_from_the_environment(patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHWAVE_KEY", "from-environment")
    assert patchwave("run", "list").code == 0
    assert service.requests[0]["headers"]["x-functions-key"] == "from-environment"


def test_a_token_is_sent_where_users_sign_in(patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch):
    assert patchwave("run", "list").code == 0
    assert "authorization" not in service.requests[0]["headers"]
    monkeypatch.setenv("PATCHWAVE_TOKEN", "eyJ.secret.token\n")
    assert patchwave("run", "list").code == 0
    assert service.requests[1]["headers"]["authorization"] == "Bearer eyJ.secret.token"
    in_clear = patchwave("run", "list", "--url", "http://patchwave.example")
    assert in_clear.code == ExitCode.REFUSED
    assert "secret" not in in_clear.errors


def test_a_role_that_is_missing_is_named(patchwave: Patchwave, service: Service):
    detail = "You may not do this."
    service.answers = [problem(403, "Forbidden", detail)]
    result = patchwave("run", "cancel", "20261110T190000Z-monthly")
    assert result.code == ExitCode.REFUSED
    assert "You may not do this (403)" in result.errors


@pytest.mark.parametrize("arguments", [["run", "frobnicate"], ["run", "list", "--limit", "0"], ["policy", "apply"]])
def test_wrong_usage(patchwave: Patchwave, arguments: list[str]):
    assert patchwave(*arguments).code == ExitCode.REFUSED


@pytest.mark.parametrize("command", [[], ["run"], ["policy"], ["serve"], ["demo"], ["run", "start"]])
def test_help(patchwave: Patchwave, command: list[str]):
    result = patchwave(*command, "--help")
    assert result.code == 0
    assert "Usage: patchwave" in result.output
