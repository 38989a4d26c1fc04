"""Pieces of an HTML page that needs no network and no script; every text is escaped."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

MAX_POINTS = 300
"""Of a curve, which is no wider on the page."""
MAX_CELL = 200
"""Characters of a cell of a table."""
MANY = 10
"""Colours that are told apart at a glance."""
WIDE = 100.0
"""Largest over smallest from which on an axis is logarithmic."""
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 1200px;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; border-top: 1px solid #8886; padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .85rem; }
pre { font-size: .8rem; overflow: auto; max-height: 24rem; padding: .5rem; border: 1px solid #8884; }
img { max-width: 100%; max-height: 60rem; height: auto; object-fit: contain; background: white; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; }
.legend b { display: inline-block; width: 1rem; height: .25rem; margin-right: .3rem; vertical-align: middle; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.note { color: GrayText; font-size: .85rem; }
.pictures { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem; }
figure { margin: 0; max-width: 100%; } figcaption { font-size: .85rem; }
"""


class Markup(str):
    """HTML that was made here, to be put into a table as it is."""


def text(value: object) -> str:
    return html.escape(str(value))


def page(title: str, parts: Iterable[str]) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    body = "\n".join([f"<h1>{text(title)}</h1>", *parts])
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def heading(level: int, title: str, anchor: str | None = None) -> str:
    identity = f' id="{text(anchor)}"' if anchor else ""
    return f"<h{level}{identity}>{text(title)}</h{level}>"


def link(anchor: str, label: str) -> Markup:
    return Markup(f'<a href="#{text(anchor)}">{text(label)}</a>')


def paragraph(content: object, kind: str = "") -> str:
    return f"<p{_class(kind)}>{text(content)}</p>"


def code(content: object) -> str:
    return f"<p><code>{text(content)}</code></p>"


def lines(content: Iterable[str]) -> str:
    return f"<pre>{text(chr(10).join(content))}</pre>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are text or ``Markup``; numbers stand to the right."""
    top = "".join(f"<th>{text(clipped(name))}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def clipped(value: str) -> str:
    return value if len(value) <= MAX_CELL else f"{value[:MAX_CELL]} ..."


def _cell(value: str) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    return f"<td{_class('number') if is_number(value) else ''}>{text(rounded(clipped(value)))}</td>"


def rounded(value: str) -> str:
    """Six digits of a number with more."""
    return f"{float(value):.6g}" if is_number(value) and len(value) > 8 and "." in value else value


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def foldable(title: str, content: str, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary>{text(title)}</summary>{content}</details>"


def picture(data: bytes, kind: str, caption: str) -> str:
    """``kind`` is png, jpeg or svg+xml."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><figcaption>{text(caption)}</figcaption><img alt="{text(caption)}" src="{source}"></figure>'


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of so many neighbours that at most MAX_POINTS are left."""
    size = -(-len(points) // MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, as #rrggbb: up to MANY known ones, or else as many of a rainbow."""
    import matplotlib
    from matplotlib.colors import to_hex

    few = len(names) <= MANY
    shades = matplotlib.colormaps["tab10" if few else "turbo"]
    return {name: to_hex(shades(i if few else i / (len(names) - 1))) for i, name in enumerate(names)}


def legend(colour_of: Mapping[str, str]) -> str:
    entries = (f'<span><b style="background:{colour}"></b>{text(name)}</span>' for name, colour in colour_of.items())
    return f'<p class="legend">{"".join(entries)}</p>'


def plot(title: str, curves: Mapping[str, Sequence[tuple[int, float]]], colour_of: Mapping[str, str]) -> str:
    """Lines over steps, one for each run; ``legend`` says which.

    Args:
        curves: run -> (step, value).
        colour_of: run -> #rrggbb, the same in all plots.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": title, "font.size": 8}):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for name, points in curves.items():
            steps, values = zip(*thinned(points), strict=True)
            marker = "." if len(points) < 30 else ""
            axes.plot(steps, values, marker=marker, linewidth=1, color=colour_of[name])
        if is_wide([points[-1][0] for points in curves.values()]):  # a long run would hide the short ones
            axes.set_xscale("log")
        if is_wide([value for points in curves.values() for _, value in points]):
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return picture(file.getvalue(), "svg+xml", title)


def is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= WIDE
