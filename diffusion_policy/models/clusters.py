"""k-means, for action bins; in torch, since what is deployed needs nothing else.

Letters: N points, K centres, D numbers in a point.
"""

import torch
from torch import Tensor

_POINTS = 100_000  # more do not move the centres


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Returns the index (...) of the centre (K, D) nearest to each point (..., D)."""
    return torch.cdist(points.flatten(0, -2), centres).argmin(-1).reshape(points.shape[:-1])


@torch.no_grad()
def kmeans(points: Tensor, count: int, *, iterations: int = 50, seed: int = 0) -> Tensor:
    """Returns K = count centres (K, D) of points (N, D): Lloyd's algorithm from k-means++ (Arthur, Vassilvitskii 2007).

    Where there are fewer different points than centres, centres coincide.
    """
    generator = torch.Generator().manual_seed(seed)
    points = points.detach().cpu().double()
    if len(points) > _POINTS:
        points = points[torch.randperm(len(points), generator=generator)[:_POINTS]]
    centres = points[torch.randint(len(points), (1,), generator=generator)]  # (1, D)
    distance = torch.cdist(points, centres).squeeze(1)
    for _ in range(count - 1):
        weights = distance.square() + torch.finfo(torch.float64).tiny
        new = points[torch.multinomial(weights, 1, generator=generator)]
        centres = torch.cat([centres, new])
        distance = torch.minimum(distance, torch.cdist(points, new).squeeze(1))
    for _ in range(iterations):
        owner = nearest(points, centres)  # (N,)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        counts = torch.bincount(owner, minlength=count).unsqueeze(1)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres.float()
