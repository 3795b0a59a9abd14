"""Features to a model in closed form: normalisation, the field, calibration."""
