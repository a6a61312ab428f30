"""Tests: of the code, of shipped files in virtual machines, of whole servers."""
