"""Procedural scenes with exact depth: what the bundled depth models learn from.

Rooms, clutter, streets and open ground with textured objects, light and shadow, ray-cast on the CPU. See
`render_scene` for one scene, `iterate_scenes` for a stream, `write_scenes` and `StoredScenes` for many on disk.
"""

from __future__ import annotations

from .generate import GENERATOR_VERSION, HELD_OUT_SEED, KINDS, Scene, choose_kind, iterate_scenes, render_scene
from .shards import StoredScenes, write_scenes

__all__ = [
    "GENERATOR_VERSION",
    "HELD_OUT_SEED",
    "KINDS",
    "Scene",
    "StoredScenes",
    "choose_kind",
    "iterate_scenes",
    "render_scene",
    "write_scenes",
]
