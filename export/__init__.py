"""From a run's checkpoint to a bundle: the graphs, the proof that they equal the model, the seal."""

from ..runtime.errors import CheckpointError, ProofError, QualityError
from .exporter import Exported, export

__all__ = ["CheckpointError", "Exported", "ProofError", "QualityError", "export"]
