"""The parts of which a result is shown: HTML fragments from plain data, by the standard library alone.

The report, the comparison and the site's pages are made of the same parts, so that a figure looks and reads the same in
all three. A part takes `results` and numbers, escapes every text itself, and holds neither script nor inline style; its
looks are `parts.css` and `figures.css` in `report_page/static/tiltyard/css`, over the colours of `tokens.css`; the site
serves them too.
"""
