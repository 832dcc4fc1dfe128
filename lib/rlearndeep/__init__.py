"""Deep learning for GRASS GIS: sampling, training, prediction and assessment of maps.

The rooms of this package and who may import whom are described in CONTRIBUTING.md.
"""

__version__ = "0.1.0"
