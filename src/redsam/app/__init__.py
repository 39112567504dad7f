"""The app: click an object in a photograph and watch its mask go. `redsam app`, with the extra `redsam[app]`.

session.py keeps what a visitor chose, live.py runs one attack step by step, play.py one or two of them beside each
other, view.py draws; none of these knows the browser. page.py is the thin layer of Gradio, imported when asked for.
"""

from __future__ import annotations

from redsam.app.session import Session, Visitors

__all__ = ["Session", "Visitors"]
