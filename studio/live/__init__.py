"""The routes that the page's live parts talk to, all below /studio: one file per subject, JSON in and out.

Jobs themselves are in studio/api.py, which the command line speaks as well. A refusal is {"error": {code, en, zh}}.
"""

from __future__ import annotations

from starlette.routing import BaseRoute, Mount

from studio.app import App
from studio.live import assets, datasets, events, packs, pictures, runs, system, tokens, tools, workflows


def routes(app: App) -> list[BaseRoute]:
    parts = (assets, events, pictures, runs, datasets, tools, workflows, tokens, packs, system)
    return [Mount("/studio", routes=[route for part in parts for route in part.routes(app)])]
