"""What `datasets.check` knows: kinds of findings, how they are judged over a collection, how they are shown."""
