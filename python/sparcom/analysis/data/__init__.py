"""From a stored run to what the statistics act on."""
