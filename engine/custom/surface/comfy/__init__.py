"""`comfy`: the parts that node packs use. Models are ours; what may be done with them: docs/custom-nodes.md."""
