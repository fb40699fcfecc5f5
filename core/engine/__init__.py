"""The training engine: an explicit loop over batches that somebody else makes. It opens no image.

with world(config.how.device) as place, open_run(out, config, world=place) as run:
    fit(build(config.recipe, config.seed), config, run, batches=..., held_out=..., world=place)
"""
