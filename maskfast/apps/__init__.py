"""Floor 5: what people run: the command line, the web page, cameras and clusters."""
