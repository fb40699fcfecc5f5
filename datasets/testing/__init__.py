"""Exams for interchangeable parts, shipped with the package: `datasets.testing.reader_contract`."""
