"""What must hold under bad data, bad luck and bad intent, tried at length; tests/ tries each of it in small."""
