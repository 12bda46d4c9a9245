"""`grounded-seg doctor`: whether everything works on this machine, and what to do where it doesn't."""

import json

import click

from grounded_seg.cli.messages import cells, set_up_messages, show_json, stdout_console
from grounded_seg.cli.options import debug_option, option_of
from grounded_seg.settings import ModelSettings


@click.command()
@option_of(ModelSettings, "device", "Device that is checked: auto, cpu, cuda, cuda:N or mps.")
@option_of(ModelSettings, "dtype", "Dtype that is checked; auto is the fastest that the device supports in hardware.")
@click.option("--online", is_flag=True, help="Also check the network to the Hugging Face hub.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, for a bug report.")
@debug_option
def doctor(device: str, dtype: str, online: bool, as_json: bool, debug: bool) -> int:
    """Check that everything works on this machine, and say what to do where it doesn't.

    Looked at are Python and the installed versions, OpenCV, the device with its driver, memory and dtype, the disk, and
    the weights on it with their hashes. Then the demo is asked about an image whose answer is known. Without --online
    no network is used.

    Exit code: 0 all right, or with warnings only; otherwise that of the first error: 1 installation, 2 usage, 4 weights
    missing or wrong, 5 device.
    """
    set_up_messages(debug=debug)
    # These import torch and rich, which would slow --help down.
    from rich.text import Text

    from grounded_seg.diagnosis.finding import Finding, exit_code_of
    from grounded_seg.diagnosis.installation import all_findings

    console, findings = stdout_console(), list[Finding]()

    def show(found: Finding) -> None:
        findings.append(found)
        if as_json:
            return
        state = Text(f"{found.state:8}", _COLOURS[str(found.state)])
        console.print(Text().append_text(state).append_text(*cells(f"{found.subject}: {found.what}")), soft_wrap=True)
        if found.remedy:
            console.print(*cells(f"        -> {found.remedy}"), soft_wrap=True)

    for found in all_findings(device, str(dtype), online=online):
        show(found)
    code = exit_code_of(findings)
    if as_json:
        records = [
            {"subject": one.subject, "state": str(one.state), "what": one.what, "remedy": one.remedy, **dict(one.facts)}
            for one in findings
        ]
        show_json(json.dumps({"exit_code": code, "findings": records}, indent=2))
    return code


_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}
