"""The entry point of the `edgechat` command."""

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    # PyTorch's OpenMP threads spin while they wait for each other. On a busy machine, training with two such
    # threads took six to fifteen times as long as with one. With this setting they sleep instead.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # An import may turn the KeyboardInterrupt into an error of its own, as that of ONNX Runtime does.
        interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if interruptible:
            signal.signal(signal.SIGINT, _exit_interrupted)
        from .app import app
        from .console import reopen_closed_standard_files, use_utf8_stdout

        reopen_closed_standard_files()
        use_utf8_stdout()
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app(prog_name="edgechat")
    except KeyboardInterrupt:  # before a command runs; `errors` handles one that interrupts a command
        sys.exit(130)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not _has_typer():  # installed only to embed models
            sys.exit("edgechat: the command line needs typer: pip install typer (edgechat.runtime does not)")
        # onnxruntime and onnxruntime-gpu share a folder: uninstalling one leaves the other incomplete.
        if "onnxruntime" not in str(error):
            raise
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        sys.exit(f"edgechat: onnxruntime is missing or only partly installed ({error}): {remedy}")


def _has_typer() -> bool:
    """Whether Typer can be imported, with the packages that it needs."""
    try:
        import typer  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def _exit_interrupted(number: int, frame: Any) -> None:
    """Exit at once: no command has begun, so there is nothing to clean up."""
    os._exit(130)
