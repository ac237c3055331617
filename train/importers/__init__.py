"""The corpora that come as packages, by name, each with its own cleaning."""

from .registry import CORPUS_NAMES, Importer, find_importer

__all__ = ["CORPUS_NAMES", "Importer", "find_importer"]
