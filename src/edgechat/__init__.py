"""edgechat: train a tiny private chat or command model, prove its ONNX export, run it anywhere.

The packages are floors of one house, each of which sees only the floors below it:
`edgechat.cli` > `edgechat.tui` | `edgechat.export` > `edgechat.train` > `edgechat.runtime`.
To embed a model in an application, `edgechat.runtime` is all that is needed.
"""

__version__ = "0.1.0"
