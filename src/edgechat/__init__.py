"""edgechat: train a tiny private chat or command model, prove its ONNX export, run it anywhere.

The packages are layers, each of which imports only the layers after it:
`edgechat.cli` > `edgechat.tui` | `edgechat.export` > `edgechat.train` > `edgechat.runtime`.
To embed a model in an application, `edgechat.runtime` is enough.
"""

import os as _os

# Official builds of ONNX Runtime send telemetry when a session is created: a persistent identifier, the
# process and the machine. This switches it off, and has to be set before ONNX Runtime is imported. Set the
# variable to "0" to allow telemetry.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
