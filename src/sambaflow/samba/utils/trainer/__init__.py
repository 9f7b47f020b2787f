"""Training loops of the 2021 releases: programs import them and bring loops of their own."""
