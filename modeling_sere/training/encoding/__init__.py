"""Clips to features: every clip decoded and encoded once, cached, and pooled by corpus."""
