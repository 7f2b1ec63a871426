"""Runs on a builder machine: applies the roles of the recipe, checks the result, reports. Standard library only.

It travels inside the bundle as the package `mesaform_images.builder`, so it imports nothing but itself.
"""
