"""The command line: `edgechat train`, `export`, `reply`, `tui` and the rest. Nothing imports it."""

import os
import sys


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    # OpenMP's threads, of PyTorch, spin while they wait for each other: on a machine that is busy, a training
    # with two of them took six to fifteen times as long as with one. Asleep, they do not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from .app import app
        from .console import speak_utf8

        speak_utf8()
    except KeyboardInterrupt:  # before there is a command to interrupt
        sys.exit(130)
    except (ImportError, AttributeError) as error:
        if getattr(error, "name", None) == "typer":  # a small box that only embeds has no command line
            sys.exit("edgechat: the command line needs typer: pip install typer (edgechat.runtime does not)")
        # onnxruntime and onnxruntime-gpu share a folder: removing one leaves a part of the other.
        if "onnxruntime" not in str(error):
            raise
        mend = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        sys.exit(f"edgechat: onnxruntime is missing or only partly installed ({error}): {mend}")
    app(prog_name="edgechat")
