"""What acting leaves behind: episodes, sources and mixtures, sampling, measures, file formats."""

from polyact.data.episodes import Episodes, concatenate
from polyact.data.flatten import flatten
from polyact.data.source import Data, Mixture, Source, as_mixture

__all__ = ["Data", "Episodes", "Mixture", "Source", "as_mixture", "concatenate", "flatten"]
