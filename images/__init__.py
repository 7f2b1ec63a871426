"""Images: the recipe, locked packages, the bake, and the program that runs on a builder."""
