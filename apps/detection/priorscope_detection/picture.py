"""A frame seen from above: points of all agents, true boxes, found boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from priorscope_detection.data.frame import Frame
from priorscope_detection.data.rigid import Array, move_points

#: Of the ego's points, then of the other agents'.
AGENT_COLOURS = ((120, 120, 120), (86, 133, 189), (196, 149, 84), (141, 108, 171), (99, 155, 120))
TRUE_COLOUR = (0, 150, 60)
FOUND_COLOUR = (214, 39, 40)


def bird_view(frame: Frame, boxes: Array, extent: tuple[float, ...], *, metres: float = 0.1) -> NDArray[np.uint8]:
    """Draw a frame on white: x to the right, y up.

    Parameters
    ----------
    frame : Frame
        Its points are placed by the poses told; its truth is drawn in green.
    boxes : ndarray, (N, 7)
        Found boxes, in the ego's frame; red, with a line from the centre to the front.
    extent : tuple of float
        x, y, z of the lower and the upper corner of what is shown, in metres.
    metres : float
        Of a pixel.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
        Of data with left-handed axes (OPV2V, V2XSet) the mirror image of the street.
    """
    x0, y0, _, x1, y1, _ = extent
    width, height = max(round((x1 - x0) / metres), 1), max(round((y1 - y0) / metres), 1)
    pixels = np.full((height, width, 3), 255, np.uint8)
    moves = frame.to_ego()
    # the ego's points last, on top
    for number in reversed(range(len(frame.agents))):
        points = move_points(moves[number], frame.agents[number].points)
        place = np.floor((points[:, :2] - [x0, y0]) / metres)
        inside = ((place >= 0) & (place < [width, height])).all(1)
        column, row = place[inside].astype(np.int64).T
        pixels[height - 1 - row, column] = AGENT_COLOURS[number % len(AGENT_COLOURS)]
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for set_of_boxes, colour in ((frame.truth.boxes, TRUE_COLOUR), (np.asarray(boxes), FOUND_COLOUR)):
        for box in set_of_boxes:
            _outline(draw, box, colour, (x0, y1), metres)
    return np.asarray(image)


def _outline(
    draw: ImageDraw.ImageDraw, box: Array, colour: tuple[int, int, int], corner: tuple[float, float], metres: float
) -> None:
    c, s = np.cos(box[6]), np.sin(box[6])
    along, across = np.array([c, s]) * box[3] / 2, np.array([-s, c]) * box[4] / 2
    middle = box[:2]
    ring = [middle + along + across, middle + along - across, middle - along - across, middle - along + across]

    def shown(point: Array) -> tuple[float, float]:
        return (point[0] - corner[0]) / metres, (corner[1] - point[1]) / metres

    draw.line([shown(point) for point in (*ring, ring[0])], fill=colour, width=2)
    draw.line([shown(middle), shown(middle + along)], fill=colour, width=2)
