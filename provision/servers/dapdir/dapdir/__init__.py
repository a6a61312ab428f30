"""dapdir: a DAP2 server for a directory tree of netCDF and HDF5 files."""

import os

__version__ = "1.0.0"
SERVER = f"dapdir/{__version__}"

# Data sets are on read-only network mounts, where HDF5's file locks fail or hang.  HDF5 reads this
# variable only once, when it is loaded: so it is set before any module imports netCDF4.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
# NumPy's threads are of no use here, and a process that has threads cannot be forked safely.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
