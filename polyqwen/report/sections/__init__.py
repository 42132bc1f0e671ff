"""What the parts of a run's page show: files of the run in, values for the template out."""
