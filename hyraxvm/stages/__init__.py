"""The stages of an image, the plan of their keys, and the pipeline that runs them."""
