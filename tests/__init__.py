"""Tests of bayesfm; a package, so that helpers can be imported as tests.NAME."""
