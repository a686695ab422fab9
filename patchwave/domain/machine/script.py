"""A person's script, made ready for the guest, and its result.

The run-command call of Azure does not tell how a script ended: it reports success for ``exit 123`` on Linux
(azure-cli issue 14425) and, since 2024, for ``exit 1`` on Windows (issue 29750), and it may run its own sample script
instead of the one that was sent (issue 32286). So the script is wrapped: the wrapper prints the exit code as its last
line, which survives because Azure keeps the last 4,096 bytes of the output. No such line means that the end of the
script is not known.
"""

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from patchwave.domain.core.documents import Json, objects_or_empty
from patchwave.domain.policy.hooks import SHEBANG
from patchwave.domain.policy.scope import OsType

KEPT_OUTPUT_BYTES = 2_048
TIMED_OUT_CODE = 124
"""What coreutils' ``timeout`` ends with when it had to end the script."""

_AZURE_KEEPS_BYTES = 4_096
_EXIT_LINE = re.compile(r"patchwave-exit:(-?[0-9]{1,10})[ \t\r]*(?:\n|$)")
_LINUX_MESSAGE = re.compile(r"\A[^\n]*\n\[stdout\]\n(?P<out>.*?)\n?\[stderr\]\n?(?P<err>.*)\Z", re.DOTALL)


class ScriptEnd(NamedTuple):
    """How a script ended: its exit code, or ``None`` when the guest does not tell; and what it printed."""

    exit_code: int | None
    output: str


def command_of(os_type: OsType) -> str:
    return "RunPowerShellScript" if os_type is OsType.WINDOWS else "RunShellScript"


def wrap_script(text: str, os_type: OsType, timeout: timedelta, variables: Mapping[str, str]) -> list[str]:
    """The lines to send: set the variables, run the script in a process of its own, print its exit code.

    On Linux the script is ended after ``timeout``. On Windows it is not: there the wait ends and the script goes on.
    """
    if os_type is OsType.WINDOWS:
        return _for_windows(text, variables)
    return _for_linux(text, timeout, variables)


def _for_linux(text: str, timeout: timedelta, variables: Mapping[str, str]) -> list[str]:
    first = SHEBANG.fullmatch(text.partition("\n")[0])
    interpreter = first[1] if first else "/bin/sh"
    # A line that no script of this content can hold by accident.
    end = "PATCHWAVE_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16].upper()
    seconds = int(timeout.total_seconds())
    return [
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        "patchwave_file=$(mktemp) || exit 1",
        f"cat > \"$patchwave_file\" <<'{end}'",
        *text.removesuffix("\n").split("\n"),
        end,
        "if command -v timeout > /dev/null 2>&1; then",
        f'  timeout -k 30 {seconds} {interpreter} "$patchwave_file" < /dev/null',
        "else",
        f'  {interpreter} "$patchwave_file" < /dev/null',
        "fi",
        "patchwave_code=$?",
        'rm -f "$patchwave_file"',
        'echo "patchwave-exit:$patchwave_code"',
    ]


def _for_windows(text: str, variables: Mapping[str, str]) -> list[str]:
    encoded = base64.b64encode(text.encode("utf-16-le", "surrogatepass")).decode()
    quoted = {name: value.replace("'", "''") for name, value in variables.items()}
    return [
        *(f"$env:{name} = '{value}'" for name, value in quoted.items()),
        # A process of its own: exit would end the wrapper too. Text, or errors come as XML.
        f"powershell.exe -NoProfile -NonInteractive -OutputFormat Text -EncodedCommand {encoded}",
        "$patchwaveCode = $LASTEXITCODE",
        'Write-Output "patchwave-exit:$patchwaveCode"',
    ]


def read_script_end(result: Json) -> ScriptEnd:
    """Read the result of a run command: ``{"value": [{"code", "message"}, ...]}``.

    Linux has one entry, whose message holds both streams; Windows one for each stream.
    """
    output, errors = "", ""
    for entry in objects_or_empty(result.get("value")):
        message = str(entry.get("message") or "").replace("\r\n", "\n")
        streams = _LINUX_MESSAGE.fullmatch(message)
        if streams is not None:
            output, errors = output + streams["out"], errors + streams["err"]
        elif "stderr" in str(entry.get("code", "")).casefold():
            errors += message
        else:
            output += message
    if len(output.encode("utf-8", "replace")) + len(errors.encode("utf-8", "replace")) >= _AZURE_KEEPS_BYTES - 256:
        # Azure cut the beginning: half a line may be half a secret that nothing recognizes any more.
        output = output.partition("\n")[2]
    found = list(_EXIT_LINE.finditer(output))
    code = int(found[-1][1]) if found else None
    if found:
        output = output[: found[-1].start()] + output[found[-1].end() :]
    said = output.strip()
    if errors.strip():
        said = f"{said}\n[stderr]\n{errors.strip()}".strip()
    return ScriptEnd(code, said)


def shorten_output(text: str) -> str:
    """The end of the text, in at most 2 KiB of UTF-8: how a script ended matters more than how it began."""
    data = text.encode("utf-8", "replace")
    if len(data) <= KEPT_OUTPUT_BYTES:
        return text
    marker = "… [cut]\n"
    room = KEPT_OUTPUT_BYTES - len(marker.encode())
    return marker + data[-room:].decode("utf-8", "ignore")
