"""What is baked: the recipe, the locked packages, and the program that applies them on a builder machine."""
