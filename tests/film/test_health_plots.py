"""What the plots of a report show."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from diffusion_policy.data.survey import survey
from diffusion_policy.film.health_plots import lengths_figure
from tests.data.doctor.arm import demonstrations, stored


@pytest.mark.parametrize("count", [1, 3])
def test_each_episode_fills_its_whole_place_among_the_lengths(count: int) -> None:
    figure = lengths_figure(survey(stored(demonstrations(count=count))))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    for x in (-0.4, count - 0.6):  # near the left side of the first one, and the right side of the last one
        across, up = figure.axes[0].transData.transform((x, 20.0))
        assert pixels[-int(up), int(across)].tolist() != [255] * 4
