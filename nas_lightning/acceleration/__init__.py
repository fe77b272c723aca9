"""How a network is computed: the levels, and accelerate(), which applies one from outside."""

from nas_lightning.acceleration.accelerated import Accelerated, accelerate
from nas_lightning.acceleration.double_backward import twice_differentiable
from nas_lightning.acceleration.level import LEVELS, Level, Speed, check_speed, level_of
from nas_lightning.acceleration.per_sample import PerSampleSums

__all__ = [
    "LEVELS",
    "Accelerated",
    "Level",
    "PerSampleSums",
    "Speed",
    "accelerate",
    "check_speed",
    "level_of",
    "twice_differentiable",
]
