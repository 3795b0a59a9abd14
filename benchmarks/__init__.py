"""Measurements of SERE beside other methods: accuracy across languages, speed, scale."""
