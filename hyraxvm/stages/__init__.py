"""The stages of an image, and the plan that ties them together."""
