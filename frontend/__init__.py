"""Ways in: what turns other people's notations into modules."""
