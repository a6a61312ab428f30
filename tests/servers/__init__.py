"""Tests of whole servers in virtual machines."""
