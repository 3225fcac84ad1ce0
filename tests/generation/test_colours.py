"""The colours of the page, in each choice of APP_COLOR, by day and by night."""

from __future__ import annotations

import re

from support import PROJECT_FOLDER, ROOT


def test_every_colour_can_be_read_on_every_ground() -> None:
    """WCAG asks for a contrast of 4.5: https://www.w3.org/TR/WCAG22/#contrast-minimum"""
    (sheet,) = (ROOT / PROJECT_FOLDER).glob("*/static/style.css")
    light, dark = sheet.read_text(encoding="utf-8").split("prefers-color-scheme: dark", 1)
    dark = dark.partition("\n* {")[0]
    for part in (light, dark):
        colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part[: part.index("[data-")]))
        accents = re.findall(r"--accent: (#[0-9a-f]{6})", part)
        assert len(accents) == 6
        grounds = [colors["back"], colors["card"]]
        pairs = [(text, ground) for text in accents for ground in grounds]
        pairs += [(colors["on-accent"], accent) for accent in accents]
        for name in ("text", "quiet", "good", "bad"):
            pairs += [(colors[name], ground) for ground in grounds]
        pairs += [(colors[name], colors[f"{name}-back"]) for name in ("good", "bad")]
        for text, ground in pairs:
            assert contrast(text, ground) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
