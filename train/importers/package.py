"""The folder of an installed package that holds a corpus."""

import importlib.util
from pathlib import Path

from ...runtime.errors import EdgeChatError


def package_folder(module: str, distribution: str) -> Path:
    """The folder of an installed package, which is located without being imported.

    Raises EdgeChatError, with the command that installs it, if it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise EdgeChatError(f"the package {distribution} is not installed: pip install {distribution}")
    return Path(spec.submodule_search_locations[0])
