"""From a run's checkpoint to a bundle: the graphs, the proof that they equal the model, the seal."""

from .exporter import Exported, export

__all__ = ["Exported", "export"]
