"""Export of a checkpoint as a bundle: ONNX graphs, the proof that they equal the model, and the seal."""

from ..runtime.errors import CheckpointError, ProofError, QualityError
from .exporter import Exported, export

__all__ = ["CheckpointError", "Exported", "ProofError", "QualityError", "export"]
