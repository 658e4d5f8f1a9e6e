"""Shortest ways round the block: a visibility graph on its outline, widened by the agent's radius and a clearance.

Everything is in the block's frame with the centre of mass as origin, where the graph never changes; what changes with
the block's pose is which of its nodes lie on the board. Letters: S sources, C targets, K nodes.
"""

import numpy as np
import shapely

from diffusion_policy_envs.pusht.geometry import AGENT_RADIUS, BLOCK_OUTLINE, CENTER_OF_MASS, Floats

__all__ = ["Detours"]

_TOUCH = 1.0  # px: a way may graze the outline


class Detours:
    """Lengths and corner points of the shortest ways round the block.

    Attributes:
        nodes: (K, 2), corners of the widened outline, px.
        ring: the widened outline.
    """

    def __init__(self, clearance: float) -> None:
        outline = shapely.Polygon(BLOCK_OUTLINE - CENTER_OF_MASS)
        widened = outline.buffer(AGENT_RADIUS + clearance, quad_segs=2)
        self.ring = widened.exterior
        self.nodes = shapely.get_coordinates(self.ring)[:-1]
        self._obstacle = widened.buffer(-_TOUCH, join_style="mitre")
        shapely.prepare(self._obstacle)
        self._between = self._lengths(self.nodes, self.nodes)  # (K, K)

    def _lengths(self, starts: Floats, ends: Floats) -> Floats:
        """Returns the lengths (S, C) of the straight ways, inf where the block stands in between."""
        lines = np.stack(np.broadcast_arrays(starts[:, None], ends[None]), axis=-2)  # (S, C, 2, 2)
        length = np.linalg.norm(lines[..., 1, :] - lines[..., 0, :], axis=-1)
        blocked = shapely.intersects(self._obstacle, shapely.linestrings(lines))
        return np.asarray(np.where(blocked, np.inf, length))

    def leave(self, points: Floats) -> Floats:
        """Returns the points (S, 2), those within the widened outline moved to the nearest point on it."""
        geometry = shapely.points(points)
        inside = shapely.intersects(self._obstacle, geometry)
        nearest = shapely.line_interpolate_point(self.ring, shapely.line_locate_point(self.ring, geometry))
        return np.asarray(np.where(inside[:, None], shapely.get_coordinates(nearest), points))

    def lengths(self, sources: Floats, usable: np.ndarray, targets: Floats) -> Floats:
        """Returns the lengths (S, C) of the shortest ways, inf where there is none.

        Args:
            sources: (S, 2), px.
            usable: (S, K), which nodes may be passed from this source.
            targets: (C, 2), px, on or outside the widened outline.
        """
        exits = self.leave(sources)
        to_node = self._lengths(exits, self.nodes) + np.where(usable, 0.0, np.inf)  # (S, K)
        to_node = np.min(to_node[:, :, None] + self._closure(usable), axis=1)  # (S, K)
        from_node = self._lengths(self.nodes, targets)  # (K, C)
        around = np.min(to_node[:, :, None] + from_node, axis=1)  # (S, C)
        to_exit = np.linalg.norm(exits - sources, axis=-1)  # (S,)
        return np.asarray(np.minimum(self._lengths(exits, targets), around) + to_exit[:, None])

    def way(self, source: Floats, usable: np.ndarray, target: Floats) -> Floats:
        """Returns the corner points (N, 2) of the shortest way, without the source, the target last."""
        points = list(self.leave(source[None]))
        remaining = self._closure(usable[None])[0]  # (K, K)
        to_target = np.min(remaining + self._lengths(self.nodes, target[None])[:, 0], axis=1)  # (K,)
        open_nodes = usable.copy()
        while not np.isfinite(self._lengths(points[-1][None], target[None])[0, 0]):
            ahead = np.where(open_nodes, self._lengths(points[-1][None], self.nodes)[0] + to_target, np.inf)
            best = int(np.argmin(ahead))
            if not np.isfinite(ahead[best]):
                break
            open_nodes[best] = False
            points.append(self.nodes[best])
        return np.array([*points, target])

    def _closure(self, usable: np.ndarray) -> Floats:
        """Returns shortest lengths (S, K, K) between nodes over usable nodes (S, K): Floyd and Warshall's algorithm."""
        shut = np.where(usable, 0.0, np.inf)
        length = self._between + shut[:, :, None] + shut[:, None, :]
        for k in range(length.shape[1]):
            length = np.minimum(length, length[:, :, k, None] + length[:, None, k, :])
        return length
