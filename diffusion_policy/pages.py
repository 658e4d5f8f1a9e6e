"""Reports as pages: templates of any room over one frame (`page.html.j2`), and pictures inside a page."""

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rendered(template: Path, context: Mapping[str, Any]) -> str:
    """Returns a page; what comes from data is escaped in HTML, and an unknown name is an error.

    Args:
        template: a .html.j2, which may extend page.html.j2, or of another kind, e.g. .md.j2.
        context: what its names mean.
    """
    loader = ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(Path(__file__).parent)])
    settings: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    made = Environment(loader=loader, autoescape=template.name.endswith(".html.j2"), **settings)
    return made.get_template(template.name).render(context)


def inline_png(png: bytes) -> str:
    """Returns a PNG as what `src` of an <img> may hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def figure_png(figure: "Figure", dpi: int = 100) -> bytes:
    """Returns a figure of matplotlib as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()
