"""ComfyUI's HTTP and websocket API, written from its observed behaviour: one file per subject.

Every route answers at the root and under /api. What a client sends is checked as what a stranger sends.
"""
