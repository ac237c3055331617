"""edgechat: train a tiny private chat or command model, prove its ONNX export, run it anywhere.

The packages are floors of one house, each of which sees only the floors below it:
`edgechat.cli` > `edgechat.tui` | `edgechat.export` > `edgechat.train` > `edgechat.runtime`.
To embed a model in an application, `edgechat.runtime` is all that is needed.
"""

import os as _os

# ONNX Runtime's official builds report to their maker whenever a session is made: an identifier that they
# keep, the process and the machine. Nothing leaves a machine here. It has to be said before ONNX Runtime is
# loaded; "0" in the environment lets it report.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
