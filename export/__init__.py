"""Export of a checkpoint as a bundle: ONNX graphs, the proof that they equal the model, and the seal."""

from ..runtime.errors import CheckpointError, ProofError, QualityError
from .exporter import ExportResult, export

__all__ = ["CheckpointError", "ExportResult", "ProofError", "QualityError", "export"]
