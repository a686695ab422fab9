"""Scripts: what a policy may hold, what is sent into the guest, and what its output says."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.machine.script import (
    KEPT_OUTPUT_BYTES,
    ScriptEnd,
    command_of,
    read_script_end,
    shorten_output,
    wrap_script,
)
from patchwave.domain.policy.hooks import MAX_SCRIPT_UNITS, check_script
from patchwave.domain.policy.scope import OsType

TEN_MINUTES = timedelta(minutes=10)
NOT_HERE = pytest.mark.skipif(sys.platform == "win32", reason="the wrapper is for /bin/sh")


def linux_result(stdout: str, stderr: str = "") -> dict[str, Any]:
    return {
        "value": [
            {
                "code": "ProvisioningState/succeeded",
                "level": "Info",
                "message": f"Enable succeeded: \n[stdout]\n{stdout}\n[stderr]\n{stderr}",
            }
        ]
    }


def windows_result(stdout: str, stderr: str = "") -> dict[str, Any]:
    return {
        "value": [
            {"code": "ComponentStatus/StdOut/succeeded", "message": stdout},
            {"code": "ComponentStatus/StdErr/succeeded", "message": stderr},
        ]
    }


def carried_out(text: str, *, timeout: timedelta = TEN_MINUTES, **variables: str) -> ScriptEnd:
    """The wrapper really run, and its output read as Azure hands it over."""
    lines = wrap_script(text, OsType.LINUX, timeout, variables)
    done = subprocess.run(["/bin/sh"], input="\n".join(lines), capture_output=True, text=True, timeout=30, check=False)
    return read_script_end(linux_result(done.stdout, done.stderr))


# --- what a policy may hold


@pytest.mark.parametrize("text", ["", "  \n", "echo \0", "x" * (MAX_SCRIPT_UNITS + 1), "#! \necho"])
def test_scripts_that_cannot_be_sent_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        check_script(text)


def test_line_ends_are_made_plain() -> None:
    assert check_script("one\r\ntwo\rthree\n") == "one\ntwo\nthree\n"


def test_the_command_follows_from_the_system() -> None:
    assert command_of(OsType.LINUX) == "RunShellScript"
    assert command_of(OsType.WINDOWS) == "RunPowerShellScript"


# --- the wrapper on Linux


@NOT_HERE
@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_read(code: int) -> None:
    assert carried_out(f"echo hello\nexit {code}\n") == ScriptEnd(code, "hello")


@NOT_HERE
def test_variables_arrive_unharmed() -> None:
    awkward = 'it\'s $HOME `date` "q" \\ '
    assert carried_out('printf %s "$PATCHWAVE_X"', PATCHWAVE_X=awkward) == ScriptEnd(0, awkward.strip())


@NOT_HERE
def test_the_script_is_run_as_it_is() -> None:
    text = "x='a b'\ncat <<EOF\n$x \\$y `echo sub`\nEOF\n"
    assert carried_out(text) == ScriptEnd(0, "a b $y sub")


@NOT_HERE
def test_another_interpreter_can_be_chosen() -> None:
    assert carried_out("#!/usr/bin/env python3\nimport sys\nprint(1 + 1)\nsys.exit(7)\n") == ScriptEnd(7, "2")


@NOT_HERE
def test_both_streams_are_kept() -> None:
    end = carried_out("echo out\necho err >&2\nexit 2")
    assert end == ScriptEnd(2, "out\n[stderr]\nerr")


@NOT_HERE
def test_a_script_is_ended_after_its_time() -> None:
    assert carried_out("sleep 20", timeout=timedelta(seconds=1)).exit_code == 124


@NOT_HERE
@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=60))
def test_no_text_breaks_out_of_the_wrapper(text: str) -> None:
    # ":" does nothing with its argument, so that whatever the script says, only the quoting is at stake.
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert carried_out(f": {quoted}\nexit 5").exit_code == 5


# --- the wrapper on Windows


def test_on_windows_the_script_is_a_process_of_its_own() -> None:
    lines = wrap_script("exit 3", OsType.WINDOWS, TEN_MINUTES, {"PATCHWAVE_X": "it's"})
    assert lines[0] == "$env:PATCHWAVE_X = 'it''s'"
    encoded = lines[1].rpartition(" ")[2]
    assert base64.b64decode(encoded).decode("utf-16-le") == "exit 3"
    assert "$LASTEXITCODE" in lines[2]


def test_the_longest_script_fits_a_command_line() -> None:
    lines = wrap_script("x" * MAX_SCRIPT_UNITS, OsType.WINDOWS, TEN_MINUTES, {})
    assert max(len(line) for line in lines) < 32_767


# --- the output


def test_windows_has_an_entry_for_each_stream() -> None:
    read = read_script_end(windows_result("done\r\npatchwave-exit:0\r\n", "careful\r\n"))
    assert read == ScriptEnd(0, "done\n[stderr]\ncareful")


@pytest.mark.parametrize(
    "result", [{}, {"value": None}, {"value": [{"message": None}, "odd"]}, linux_result("This is a sample script")]
)
def test_without_the_last_line_the_exit_code_is_unknown(result: dict[str, Any]) -> None:
    assert read_script_end(result).exit_code is None


def test_the_last_line_counts_when_a_script_prints_one_of_its_own() -> None:
    assert read_script_end(linux_result("patchwave-exit:0\npatchwave-exit:9\n")).exit_code == 9


def test_a_line_whose_beginning_azure_cut_off_is_not_shown() -> None:
    cut = "cret-token-tail\n" + "x" * 4_070 + "\npatchwave-exit:0\n"
    read = read_script_end(linux_result(cut))
    assert read.exit_code == 0
    assert "token" not in read.output


@given(st.text(max_size=6_000))
def test_output_is_kept_to_its_end_and_in_bounds(text: str) -> None:
    kept = shorten_output(text)
    assert len(kept.encode("utf-8", "replace")) <= KEPT_OUTPUT_BYTES
    if len(text.encode("utf-8", "replace")) <= KEPT_OUTPUT_BYTES:
        assert kept == text
    else:
        assert kept[-1:] == text[-1:] or not kept.isascii()
        assert kept.startswith("… [cut]\n")
