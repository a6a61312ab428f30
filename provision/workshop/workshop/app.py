"""Imports what notebooks use: the build runs it, so that a missing library ends the build."""

import ipykernel.kernelapp
import jupyterlab.labapp
import matplotlib.pyplot
import netCDF4
import pydap.client
import terminado
import xarray

import workshop.learners

__all__ = [
    "ipykernel",
    "jupyterlab",
    "matplotlib",
    "netCDF4",
    "pydap",
    "terminado",
    "workshop",
    "xarray",
]
