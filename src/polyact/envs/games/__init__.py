"""Games of several players: finite ones as trees on which everything can be computed exactly, and Hanabi as an environment."""
