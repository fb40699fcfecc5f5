"""What every domain does the same way: from paths to manifests, runs, vectors and scores. Imports no domain.

A domain hands its facts over as one `Domain`; its own modules keep presets, options of its own, and the words of `--help`.
"""
