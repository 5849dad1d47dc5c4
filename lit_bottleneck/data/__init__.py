"""LightningDataModules over data held in memory and indexed a batch at a time."""

from lit_bottleneck.data.demonstrated_actions import DemonstratedActions
from lit_bottleneck.data.demonstrations import Demonstrations
from lit_bottleneck.data.digits import Digits
from lit_bottleneck.data.evaluation_sampler import EvaluationSampler
from lit_bottleneck.data.images import Images
from lit_bottleneck.data.imdb import IMDB
from lit_bottleneck.data.policy_episodes import PolicyEpisodes
from lit_bottleneck.data.properties import DataProperties
from lit_bottleneck.data.ring import Ring
from lit_bottleneck.data.rollouts import Rollouts
from lit_bottleneck.data.shapes import Shapes
from lit_bottleneck.data.shards import Shards
from lit_bottleneck.data.table import Table

__all__ = [
    "IMDB",
    "DataProperties",
    "DemonstratedActions",
    "Demonstrations",
    "Digits",
    "EvaluationSampler",
    "Images",
    "PolicyEpisodes",
    "Ring",
    "Rollouts",
    "Shapes",
    "Shards",
    "Table",
]
