"""A loss curve as a small SVG, without a plotting library."""

import json
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 300, 44


def plot_loss(log_path: Path, svg_path: Path) -> None:
    """Draw ``answer_loss`` and ``loss`` of a training log over its tokens."""
    records = [json.loads(line) for line in log_path.read_text(encoding="utf-8").splitlines()]
    if not records:
        raise ValueError(f"{log_path} has no records to plot")
    last_token = records[-1]["tokens"]
    top = max(max(record["loss"], record["answer_loss"]) for record in records)

    def points(key: str) -> str:
        return " ".join(
            f"{MARGIN + (WIDTH - 2 * MARGIN) * record['tokens'] / last_token:.1f},"
            f"{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * record[key] / top:.1f}"
            for record in records
        )

    labels = [
        (MARGIN, HEIGHT - MARGIN + 18, "start", "0"),
        (WIDTH - MARGIN, HEIGHT - MARGIN + 18, "end", f"{last_token / 1e6:.1f} M tokens"),
        (MARGIN - 6, MARGIN + 4, "end", f"{top:.2f}"),
        (MARGIN - 6, HEIGHT - MARGIN, "end", "0"),
    ]
    texts = [f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in labels]
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>',
        f'<polyline points="{points("loss")}" fill="none" stroke="#b9c4d0"/>',
        f'<polyline points="{points("answer_loss")}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>',
        f'<text x="{WIDTH - MARGIN}" y="{MARGIN}" text-anchor="end" fill="#1f5fa8">answer loss (nats per token)</text>',
        f'<text x="{WIDTH - MARGIN}" y="{MARGIN + 16}" text-anchor="end" fill="#7d8996">weighted loss</text>',
        *texts,
        "</svg>",
    ]
    svg_path.write_text("\n".join(svg) + "\n", encoding="utf-8")
