"""What `datasets.convert` does: one image after the other into prepared stores, here or on a Dask cluster."""
