"""The loss of contrastive learning.

NT-Xent, the normalised and temperature-scaled cross-entropy of Chen et al. (2020, ICML): of all vectors in sight, the
one that belongs to another view of the same patch shall be the nearest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over both views of all patches of -log(exp(s_positive / t) / sum over all others of exp(s / t)).

    Args:
        first: a view of each patch, (N, D), each of length 1.
        second: another view of the same patches, (N, D).
        temperature: t; small values look at the nearest negatives only.
    """
    views = torch.cat([first, second]).float()
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return functional.cross_entropy(logits, partner)


def paired_loss(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], present: Mapping[str, Tensor], temperature: float
) -> Tensor:
    """The mean of NT-Xent over all pairs of sources: a view in one sensor shall know that of the same place in another.

    Args:
        first, second: vectors (N, D) of two views of each source.
        present: (N,), True for each patch that a source has; sources that are not named have all.
        temperature: of :func:`nt_xent`.
    """
    losses = []
    for one, other in itertools.product(first, second):
        there = torch.ones(len(first[one]), dtype=torch.bool, device=first[one].device)
        for name in (one, other):
            there = there & present.get(name, there)
        if int(there.sum()) > 1:
            losses.append(nt_xent(first[one][there], second[other][there], temperature))
    if not losses:  # no two places have a source: nothing is learned from the step
        losses = [vectors.sum() * 0.0 for vectors in first.values()]
    return torch.stack(losses).mean()
