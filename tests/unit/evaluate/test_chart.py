from __future__ import annotations

from xml.etree import ElementTree

from puna.evaluate.chart import Bar, Panel, svg
from puna.evaluate.speed import Spread

SPACE = "{http://www.w3.org/2000/svg}"


def test_bars_are_to_scale_and_labelled() -> None:
    bars = [
        Bar("a <b>", Spread(median=10, low=8, high=12), True),
        Bar("c", Spread(median=5, low=5, high=5), False),
    ]
    root = ElementTree.fromstring(svg("title & more", [Panel("speed", bars), Panel("nothing", [])]))
    _, *rectangles = root.findall(f"{SPACE}rect")
    widths = [float(rectangle.attrib["width"]) for rectangle in rectangles]
    assert widths[0] == 2 * widths[1] > 0
    assert rectangles[0].attrib["fill"] != rectangles[1].attrib["fill"]
    texts = [text.text for text in root.findall(f"{SPACE}text")]
    assert texts == ["title & more", "speed", "a <b>", "10.0", "c", "5.00"]


def test_zeros_have_no_length() -> None:
    root = ElementTree.fromstring(svg("t", [Panel("p", [Bar("a", Spread.of([0.0]), False)])]))
    assert root.findall(f"{SPACE}rect")[1].attrib["width"] == "0.0"
