"""Procedural scenes on a ray caster (Embree): what the apps that draw their own training pictures share.

Meshes in metres with textures of a physical size, lights with shadows, mirrors, sky and haze, random cameras with
their faults, and things to put into a scene (furniture, small items, plants, houses). What a scene is made of and
which truth is kept of it is the app's own: depth and normals in `priorscope_depth.scenes`, joints in
`priorscope_pose.people`. The caster needs ``embreex``, an extra of those apps; nothing here imports it before the
first ray.

`world` collects a scene and casts rays at it, `geometry` makes meshes, `materials` and `textures` what they look
like, `surfaces` and `shading` the light that comes from them, `camera` and `photo` the picture; `things` says how to
add a thing.
"""
