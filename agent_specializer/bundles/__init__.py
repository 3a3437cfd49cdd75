"""Model bundles: named pairs of a cloud LM and an edge LM, where their weights come from, how they load."""

from agent_specializer.bundles.convert import verify_weights
from agent_specializer.bundles.load import LoadedBundle, load_models, models_of
from agent_specializer.bundles.sources import BUNDLES, Bundle, ModelSource, bundle

__all__ = [
    "BUNDLES",
    "Bundle",
    "LoadedBundle",
    "ModelSource",
    "bundle",
    "load_models",
    "models_of",
    "verify_weights",
]
