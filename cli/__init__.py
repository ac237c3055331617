"""The command line: `edgechat train`, `export`, `reply`, `tui` and the rest. Nothing imports it."""

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    # OpenMP's threads, of PyTorch, spin while they wait for each other: on a machine that is busy, a training
    # with two of them took six to fifteen times as long as with one. Asleep, they do not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # What is being imported may make another error of an interrupt, as ONNX Runtime does.
        interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if interruptible:
            signal.signal(signal.SIGINT, _leave)
        from .app import app
        from .console import keep_standard_files, speak_utf8

        keep_standard_files()
        speak_utf8()
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app(prog_name="edgechat")
    except KeyboardInterrupt:  # before a command runs; of those that run, `console` tells
        sys.exit(130)
    except (ImportError, AttributeError) as error:
        if getattr(error, "name", None) == "typer":  # a small box that only embeds has no command line
            sys.exit("edgechat: the command line needs typer: pip install typer (edgechat.runtime does not)")
        # onnxruntime and onnxruntime-gpu share a folder: removing one leaves a part of the other.
        if "onnxruntime" not in str(error):
            raise
        mend = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        sys.exit(f"edgechat: onnxruntime is missing or only partly installed ({error}): {mend}")


def _leave(number: int, frame: Any) -> None:
    """End before there is anything to end well."""
    os._exit(130)
