"""Shared by slow tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scan() -> Path:
    data = os.environ.get("EDGECHAT_DATA")
    if not data or not (Path(data) / "scan").is_dir():
        pytest.skip("EDGECHAT_DATA does not name a folder with scan/ in it")
    return Path(data) / "scan"
