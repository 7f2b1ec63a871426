"""Program of a builder machine: applies the roles of the recipe, checks the result and reports.

It travels in the bundle as the package `mesaform_images.builder` and imports nothing else. Standard
library only.
"""
