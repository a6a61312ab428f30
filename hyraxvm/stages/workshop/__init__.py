"""Stage `workshop`: data, exercises, slides and JupyterLab for a room of learners."""
