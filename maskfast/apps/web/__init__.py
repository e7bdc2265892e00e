"""The web server: pictures in over HTTP, one row of results a picture out; the page that people use is in static/."""
