"""The corpora that come as packages, by name, each with its own cleaning."""

from .registry import KNOWN, Importer, importer

__all__ = ["KNOWN", "Importer", "importer"]
